"""Networks as graphs: the operator list, the .tflite writer and reader; no torch here."""
