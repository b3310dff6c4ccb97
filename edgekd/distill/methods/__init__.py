"""The distillation methods by name, and several joined by a plus: `dist`, `dist+at`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from edgekd.distill.methods.at import AT
from edgekd.distill.methods.base import FeatureMethod, LogitMethod, Method
from edgekd.distill.methods.combined import Combined, CombinedLogits, Part
from edgekd.distill.methods.cooperative import Cooperative
from edgekd.distill.methods.crd import CRD
from edgekd.distill.methods.dist import DIST
from edgekd.distill.methods.dkd import DKD, standardized_dkd
from edgekd.distill.methods.fitnet import FitNet, Hint
from edgekd.distill.methods.kd import KD, standardized_kd
from edgekd.distill.methods.none import NoTeacher
from edgekd.distill.methods.pkt import PKT
from edgekd.distill.methods.rco import RCO
from edgekd.distill.methods.reviewkd import ReviewKD
from edgekd.distill.methods.rkd import RKD
from edgekd.distill.methods.sp import SP
from edgekd.errors import UnknownName, UsageError

LOGIT_METHODS: dict[str, Callable[[], LogitMethod]] = {
    "none": NoTeacher,
    "kd": KD,
    "kd-ls": standardized_kd,
    "dist": DIST,
    "dkd": DKD,
    "dkd-ls": standardized_dkd,
}
FEATURE_METHODS: dict[str, Callable[[], FeatureMethod]] = {
    "hint": Hint,
    "fitnet": FitNet,
    "at": AT,
    "sp": SP,
    "rkd": RKD,
    "pkt": PKT,
    "crd": CRD,
    "reviewkd": ReviewKD,
}
JOINT_METHODS: dict[str, Callable[[], FeatureMethod]] = {  # of logits, but of more than one fixed teacher's
    "rco": RCO,
    "cooperative": Cooperative,
}
METHODS: dict[str, Callable[[], FeatureMethod]] = {**LOGIT_METHODS, **FEATURE_METHODS, **JOINT_METHODS}


class MethodError(UsageError):
    """A method cannot be used like this, or not together with others."""


def method_named(name: str, weights: Mapping[str, float] | None = None) -> Method:
    """Make a method, or several, for a training that has the teacher's logits and nothing else of it.

    Raises:
        UnknownName: there is none; the message names the nearest.
        MethodError: it compares features; or as in bindable_method_named.

    """
    parts = _parts(name, weights or {})
    wrong = [part for part in parts if part not in LOGIT_METHODS]
    if wrong:
        does = "compares features" if wrong[0] in FEATURE_METHODS else "does not take the teacher as it is"
        raise MethodError(
            f"method {wrong[0]!r} {does}, and this training has only the teacher's logits: "
            f"choose among {', '.join(sorted(LOGIT_METHODS))}"
        )
    made = [(LOGIT_METHODS[part](), factor) for part, factor in parts.items()]
    return made[0][0] if list(parts.values()) == [1.0] else CombinedLogits(made)


def bindable_method_named(name: str, weights: Mapping[str, float] | None = None) -> FeatureMethod:
    """Make any method, or several, for a training that has both networks at hand.

    `weights` gives parts another weight, as a multiple of the published one (≥ 0).

    Raises:
        UnknownName: there is none; the message names the nearest.
        MethodError: a part is named twice or `none`, or a weight is negative or of no part.

    """
    parts = _parts(name, weights or {})
    if parts.keys() <= LOGIT_METHODS.keys():
        return method_named(name, weights)
    made = tuple(Part(METHODS[part](), factor) for part, factor in parts.items())
    return made[0].method if list(parts.values()) == [1.0] else Combined(made)


def weights_in(text: str) -> dict[str, float]:
    """Read weights such as "kd=0.5,dist=2"; which parts the method has is checked by who makes it.

    Raises:
        UsageError: an item is no weight, or a part is there twice.

    """
    found: dict[str, float] = {}
    for item in text.split(",") if text else ():
        name, _, number = (part.strip() for part in item.partition("="))
        try:
            weight = float(number)
        except ValueError as error:
            raise UsageError(f"method weights {text!r}: {item!r} is no weight; write as in kd=0.5,dist=2") from error
        if name in found:
            raise UsageError(f"method weights {text!r}: {name!r} is there twice; leave one out")
        found[name] = weight
    return found


def _parts(name: str, weights: Mapping[str, float]) -> dict[str, float]:
    """Give each part's factor, in the order of the name."""
    parts = name.split("+")
    for part in parts:
        if part not in METHODS:
            raise UnknownName("distillation method", part, METHODS)
    if len(set(parts)) < len(parts) or (len(parts) > 1 and "none" in parts):
        raise MethodError(f"method {name!r} cannot be combined: name each part once, and none alone")
    for part, weight in weights.items():
        if part not in parts:
            raise MethodError(f"weight {weight} is for {part!r}, which is no part of method {name!r}: leave it out")
        if not (math.isfinite(weight) and weight >= 0):
            raise MethodError(f"weight {weight} of method {part!r} is not a number of at least 0")
    return {part: float(weights.get(part, 1.0)) for part in parts}
