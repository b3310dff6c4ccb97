"""From a trained student to files: quantize, tflite, onnx, parity."""
