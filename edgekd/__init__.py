"""edgekd: find, distil and ship the student network that fits a device's latency budget.

Start reading at pipeline.py (the main job, top to bottom); cli.py is the door. This package imports torch only where
tensors are trained or exported.
"""

__version__ = "0.1.0"
