"""What a distillation method is. A new one is one file here and one entry in methods/__init__.py.

A method that compares logits alone is a LogitMethod: its `loss` needs nothing but the two networks' logits, which may
come from a file. Every method can be bound to a pair of networks: `bind` looks at one batch's answers and gives the
Guide, a module that holds what the method itself learns (regressors, projections, banks): lesson.py binds, the loop
gives it to the optimizer and keeps it in checkpoints beside the student. Guides give terms, weighed against the cross
entropy in one place, so that methods can be combined. Nothing here trains (train.py) or finds features (taps.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.distill import losses
from edgekd.distill.taps import Taps, pairs
from edgekd.errors import UsageError

Need = Literal["logits", "features", "target", "indices", "anchors"]


class FeaturesMissing(UsageError):
    """A method compares features, and there are none that fit."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What one network says to one batch."""

    logits: Tensor  # (B, classes)
    features: tuple[Tensor, ...] = ()  # (B, C, H, W) each, shallow to deep; an embedding (B, D) may be the last

    @property
    def embedding(self) -> Tensor:
        """Give the deepest feature, averaged over its pixels, (B, D).

        Raises:
            FeaturesMissing: nothing was tapped.

        """
        if not self.features:
            raise FeaturesMissing("the method compares features, and none was tapped: name at least one tap")
        deepest = self.features[-1]
        return deepest.mean((2, 3)) if deepest.ndim == 4 else deepest


def ask(network: nn.Module, taps: Taps, images: Tensor) -> Answers:
    """Run a network with its taps open; without gradients where the caller has switched them off."""
    logits: Tensor = network(images)
    return Answers(logits, taps.take())


@dataclass(frozen=True, slots=True)
class Probe:
    """What a method is bound by: both networks' answers to one batch, which has the shapes of all to come."""

    student: Answers
    teacher: Answers
    samples: int  # of the training set
    seed: int = 0  # of the guide's first weights

    def levels(self) -> tuple[tuple[int, int], ...]:
        """Match the networks' feature maps by index, shallow to deep.

        Raises:
            FeaturesMissing: one of the networks has none.

        """
        found = pairs(self.student.features, self.teacher.features)
        if not found:
            raise FeaturesMissing("the method compares feature maps, and a network has none: tap (B, C, H, W) in both")
        return found


@dataclass(frozen=True, slots=True)
class Moment:
    """Which batch it is, and when in the training."""

    target: Tensor  # (B,) class indices
    indices: Tensor  # (B,) of the samples in the training set
    progress: float  # share of the training that is done, from 0 to 1
    step: int  # of the whole training, 0 is the first
    partners: Tensor | None = None  # (B,) class indices of what is mixed into the images
    share: float = 1.0  # of its own in each image
    smoothing: float = 0.0  # of hard targets: the share that is spread evenly over all classes

    @property
    def dominant(self) -> Tensor:
        """Give the class (B,) that has the larger share of each image, for methods that know one class an image."""
        return self.target if self.partners is None or self.share >= 0.5 else self.partners

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """Give the mean cross entropy of logits (B, C); of mixed images, each class by its share."""
        own = functional.cross_entropy(logits, self.target, label_smoothing=self.smoothing)
        if self.partners is None:
            return own
        other = functional.cross_entropy(logits, self.partners, label_smoothing=self.smoothing)
        return self.share * own + (1 - self.share) * other


@dataclass(frozen=True, slots=True)
class Term:
    """A method's part of the loss: its guidance, already weighed, and the weight it leaves to the cross entropy."""

    guidance: Tensor
    hard_weight: float


class Guide(nn.Module, ABC):
    """A method at work on one pair of networks."""

    rate: float = 1.0  # of what it learns itself: a multiple of the student's learning rate

    @abstractmethod
    def forward(self, student: Answers, teacher: Answers, moment: Moment) -> Term:
        """Give the term of one batch; the teacher's answers carry no gradients."""

    def loss(self, student: Answers, teacher: Answers, moment: Moment) -> Tensor:
        """Give the training loss of one batch: weighed cross entropy + guidance."""
        term: Term = self(student, teacher, moment)
        if term.hard_weight == 0:
            return term.guidance  # layers that only the cross entropy reaches stay as they are: no decay, no momentum
        return term.hard_weight * moment.cross_entropy(student.logits) + term.guidance


class FeatureMethod(Protocol):
    """What every method is."""

    @property
    def needs(self) -> frozenset[Need]:
        """Name what its guidance needs; nothing at all means no teacher.

        Logits or features of both networks, the batch's target or indices, or several teachers that take turns.
        """
        ...

    def bind(self, probe: Probe) -> Guide:
        """Make the guide for the networks of a probe; a function of the probe and its seed.

        Raises:
            FeaturesMissing: features are needed, and the probe has none that fit.

        """
        ...


class Method(FeatureMethod, Protocol):
    """What a method is that does with logits: also a loss by itself."""

    @property
    def needs_teacher(self) -> bool:
        """Tell whether the loss needs the teacher's logits."""
        ...

    def loss(
        self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor, progress: float = 1.0
    ) -> Tensor:
        """Give the training loss of one batch: logits (B, C), targets (B,) → a scalar.

        teacher_logits is given where needs_teacher; progress is the share of the training that is done, for methods
        that warm up; a caller that leaves it out has them at their full weight.
        """
        ...


class LogitMethod(ABC):
    """The common part of methods that compare logits."""

    needs = frozenset[Need]({"logits"})
    needs_teacher = True
    hard_weight: float

    @abstractmethod
    def guidance(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor, progress: float) -> Tensor:
        """Give the weighed term beside the cross entropy, a scalar; arguments as in `loss`."""

    def loss(
        self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor, progress: float = 1.0
    ) -> Tensor:
        """Weigh hard targets against the teacher's."""
        assert teacher_logits is not None  # noqa: S101 - the training loop gives them where needs_teacher
        hard = losses.cross_entropy(student_logits, target)
        return self.hard_weight * hard + self.guidance(student_logits, teacher_logits, target, progress)

    def bind(self, probe: Probe) -> Guide:  # noqa: ARG002 - the form of every method
        """Give a guide that learns nothing."""
        return LogitGuide(self)


class LogitGuide(Guide):
    """A logit method as a guide."""

    def __init__(self, method: LogitMethod) -> None:
        super().__init__()
        self.method = method

    def forward(self, student: Answers, teacher: Answers, moment: Moment) -> Term:
        """Give the method's own term."""
        guidance = self.method.guidance(student.logits, teacher.logits, moment.dominant, moment.progress)
        return Term(guidance, self.method.hard_weight)


def warmed_up(progress: float, share: float) -> float:
    """Give the factor of a method that warms up linearly over a share of the training, from 0 to 1."""
    return min(progress / share, 1.0) if share > 0 else 1.0


def zero_of(logits: Tensor) -> Tensor:
    """Give a zero on the logits' device and of their type."""
    return torch.zeros((), dtype=logits.dtype, device=logits.device)
