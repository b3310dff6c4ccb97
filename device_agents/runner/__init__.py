"""What runs on the device: one file, pushed there as it is and never imported by the host.

Read next: `edgekd_runner.py`.
"""
