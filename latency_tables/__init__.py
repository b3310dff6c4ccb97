"""Per-operator latency tables: what was measured, how it is stored, and what it predicts for whole networks.

Knows operators and milliseconds; knows nothing of wires, devices' protocols or torch. Read schema.py first, then
builder.py and predictor.py.
"""
