"""Logits in one byte each, for caches of many: a row's largest exactly, the others by their distance below it.

Distances are kept as the square root of their share of the row's range, in 255 steps, so that the classes which a
softmax sees are fine and the far ones coarse: at a distance d the error is at most √(d · range) / 255, and a
little at d = 0. The order of classes stays, but for ties. Not for numbers whose range is not finite.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

HEAD = 8  # bytes before a row's codes: its largest and its range, float32 each
_STEPS = 255.0

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]


def encoded(logits: Floats) -> Codes:
    """Encode (…, classes) as (…, 8 + classes)."""
    top = logits.max(-1, keepdims=True)
    below = top - logits
    span = below.max(-1, keepdims=True)
    shares = np.divide(below, span, out=np.zeros_like(below), where=span > 0)
    codes = np.rint(np.sqrt(shares) * np.float32(_STEPS)).astype(np.uint8)
    head = np.concatenate([top, span], -1).astype("<f4").view(np.uint8)
    return np.concatenate([head, codes], -1)


def decoded(codes: Codes) -> Floats:
    """Decode (…, 8 + classes) into (…, classes)."""
    head = np.ascontiguousarray(codes[..., :HEAD]).view("<f4")
    shares = np.square(codes[..., HEAD:].astype(np.float32) / np.float32(_STEPS))
    logits: Floats = head[..., :1] - shares * head[..., 1:]
    return logits
