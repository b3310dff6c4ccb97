"""Runs measuring jobs on a device and brings their rows back.

It knows devices, wires and the runner; it knows nothing of tensors, architectures or latency tables, and its host
side needs the standard library only. Nothing is imported here, so that `device_agents.protocol` costs one file.
Read next: `session.py`, which is the whole story in one class.
"""
