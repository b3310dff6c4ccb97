"""From a trained student to files: quantize, write .tflite and .onnx, judge them through their runtimes."""
