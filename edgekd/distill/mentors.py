"""The teacher's side of a lesson: cached logits, a live network, or several of them one after the other.

A live teacher sees the very images that the student sees, augmented and mixed, frozen and without gradients. Where
logits are cached is logit_cache.py's, where networks come from is teachers/'s, what is compared is methods/'s.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgekd.distill.coding import decoded
from edgekd.distill.loader import Batch
from edgekd.distill.methods.base import Answers
from edgekd.distill.taps import Taps, stage_ends
from edgekd.errors import UsageError
from edgekd.teachers import Teacher

Ask = Callable[[Batch, float], Answers]  # a batch and the share of the training that is done → the teacher's answers


@dataclass(frozen=True, slots=True)
class CachedLogits:
    """A teacher's logits by sample and view, perhaps mapped from a file: exact (N, views, classes), or coded."""

    exact: Tensor | None = None
    coded: npt.NDArray[np.uint8] | None = None  # (N, views, 8 + classes), as coding.py writes them
    rows: Tensor | None = None  # of the logits, one a sample; None is the sample's own number

    def at(self, indices: Tensor, views: Tensor) -> Tensor:
        """Give logits (B, classes) of samples (B,) and views (B,), in main memory."""
        rows = indices if self.rows is None else self.rows[indices]
        if self.exact is not None:
            return self.exact[rows, views]
        if self.coded is None:
            raise UsageError("cached logits hold nothing; give exact ones or coded ones")
        return torch.from_numpy(decoded(self.coded[rows.numpy(), views.numpy()]))


@dataclass(frozen=True, slots=True)
class LiveTeacher:
    """A frozen network that is asked batch by batch."""

    module: nn.Module
    name: str = "teacher"
    taps: tuple[str, ...] = ()  # module paths; () finds the ends of its stages
    gives_features: bool = True

    @staticmethod
    def of(teacher: Teacher, taps: tuple[str, ...] = ()) -> LiveTeacher:
        """Ask a loaded teacher."""
        return LiveTeacher(teacher.module, teacher.name, taps, gives_features="features" in teacher.gives)


@dataclass(frozen=True, slots=True)
class Anchors:
    """Teachers of equal shares of the training, easy to hard: stored moments of one teacher's own training."""

    mentors: tuple[CachedLogits | LiveTeacher, ...]

    def number_at(self, progress: float) -> int:
        """Give whose turn it is at a share of the training, from 0 to 1."""
        return min(int(progress * len(self.mentors)), len(self.mentors) - 1)


Mentor = CachedLogits | LiveTeacher | Anchors


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how teachers are asked."""

    device: torch.device
    listening: bool  # also to features
    probe: Tensor  # (B, C, H, W), what stages are found by
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext


def opened(mentor: Mentor, setting: Setting, stack: ExitStack) -> Ask:
    """Make a mentor ready to be asked as long as the stack is open.

    Raises:
        UsageError: it is in train mode, or does not give features where they are wanted.
        UnknownTap, UntappableModule: what is to be tapped is not there.

    """
    if isinstance(mentor, Anchors):
        asks = [opened(one, setting, stack) for one in mentor.mentors]
        return lambda batch, progress: asks[mentor.number_at(progress)](batch, progress)
    if isinstance(mentor, CachedLogits):
        return lambda batch, progress: Answers(mentor.at(batch.indices, batch.views).to(setting.device))
    return _live(mentor, setting, stack)


def _live(teacher: LiveTeacher, setting: Setting, stack: ExitStack) -> Ask:
    if any(module.training for module in teacher.module.modules()):
        raise UsageError(f"teacher {teacher.name} is in train mode, its norms would learn; call eval() on it")
    if setting.listening and not teacher.gives_features:
        raise UsageError(f"the method compares features, and teacher {teacher.name} gives logits alone; choose another")
    module = teacher.module.to(setting.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs miss this form
    taps = None
    if setting.listening:
        with torch.no_grad():
            paths = teacher.taps or stage_ends(module, setting.probe)
        taps = stack.enter_context(Taps(module, paths))

    def ask(batch: Batch, progress: float) -> Answers:  # noqa: ARG001 - the form of every mentor
        with torch.no_grad(), setting.autocast():
            logits = module(batch.images)
        return Answers(full(logits), tuple(full(feature) for feature in taps.take()) if taps else ())

    return ask


def full(tensor: Tensor) -> Tensor:
    """Give numbers of half the width in full, for losses that square and sum them; others as they are."""
    return tensor.float() if tensor.dtype in {torch.float16, torch.bfloat16} else tensor
