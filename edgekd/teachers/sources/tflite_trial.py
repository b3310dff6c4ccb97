"""Opens the .tflite file on stdin and runs it once: started by tflite.py as a program of its own.

LiteRT checks a file's structure, and yet a damaged one can end the process that runs it; better this one than a
training. What it says and raises is nobody's business, only whether it was ended. It imports no torch, to start soon.
"""

from __future__ import annotations

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

if __name__ == "__main__":
    interpreter = Interpreter(model_content=sys.stdin.buffer.read(), num_threads=1)
    interpreter.allocate_tensors()
    for details in interpreter.get_input_details():
        interpreter.set_tensor(details["index"], np.zeros(details["shape"], details["dtype"]))
    interpreter.invoke()
    for details in interpreter.get_output_details():
        interpreter.get_tensor(details["index"])
