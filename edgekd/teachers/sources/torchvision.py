"""A classifier of torchvision as a teacher (extra `torchvision`): torchvision:NAME with its best pretrained weights.

torchvision:NAME@IMAGENET1K_V1 names others of its own, torchvision:NAME@FILE.safetensors takes weights fine-tuned on
this data, torchvision:NAME@random is untrained. Mean, deviation and size are those of the weights' own transforms; the
whole image is shown, nothing is cropped.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from edgekd.data.dataset import DataSet
from edgekd.errors import DataError
from edgekd.teachers.base import Teacher
from edgekd.teachers.fitting import check_channels, check_classes, imported, shape_of, speaking_of, torch_teacher
from edgekd.teachers.libraries import OTHER_CLASSES, RANDOM, parted, pretrained, put_weights, unknown, untrained
from edgekd.teachers.pixels import Sight

_CHANNELS = 3  # that all its classifiers take
_FILE = ".safetensors"


def load(text: str, sight: Sight, data: DataSet) -> Teacher:
    """Load NAME, NAME@WEIGHTS, NAME@FILE.safetensors or NAME@random.

    Raises:
        UnknownName: torchvision has no such network, or no such weights of it.
        DataError: its weights cannot be had, or it does not fit the data.
        MissingExtra: torchvision is not installed.

    """
    torchvision, models = imported("torchvision", "torchvision"), imported("torchvision.models", "torchvision")
    name, weights = parted(text)
    known = models.list_models(module=models)
    if name not in known:
        raise unknown("torchvision", name, known)
    kind = models.get_model_weights(name)
    with speaking_of(f"torchvision:{name}"):
        check_channels(_CHANNELS, data)
        if weights == RANDOM or weights.endswith(_FILE):
            chosen, module = kind.DEFAULT, _own(models, name, weights, data)
        else:
            chosen = _chosen(kind, weights)
            module = _theirs(models, name, chosen, data)
    record = {
        "library": f"torchvision {torchvision.__version__}",
        "architecture": name,
        "weights": weights or f"torchvision's {chosen.name}",
    }
    return torch_teacher(f"torchvision:{text}", module, sight.over(_sight(chosen, weights, data)), data, record)


def _chosen(kind: Any, weights: str) -> Any:
    if weights and weights not in kind.__members__:
        known = ", ".join([*kind.__members__, RANDOM])
        raise DataError(f"it has no weights {weights!r}; give a {_FILE} file, or one of {known}")
    return kind[weights] if weights else kind.DEFAULT


def _theirs(models: Any, name: str, chosen: Any, data: DataSet) -> nn.Module:
    check_classes(len(chosen.meta["categories"]), data, OTHER_CLASSES)  # before anything is downloaded

    def make() -> nn.Module:
        # torch's restricted reader goes first: what it takes, torchvision's own may read, too
        chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
        module: nn.Module = models.get_model(name, weights=chosen, progress=False)
        return module

    return pretrained(make)


def _own(models: Any, name: str, weights: str, data: DataSet) -> nn.Module:
    module = untrained(partial(models.get_model, name, weights=None, num_classes=data.classes))
    if weights != RANDOM:
        put_weights(module, Path(weights))
    return module


def _sight(chosen: Any, weights: str, data: DataSet) -> Sight:
    """Give what its weights learnt from; untrained ones see the data as it is, if it is not too small for them."""
    transforms = chosen.transforms()
    side = transforms.crop_size[0]
    if weights != RANDOM:
        return Sight(tuple(transforms.mean), tuple(transforms.std), (side, side))
    least = tuple(chosen.meta.get("min_size", (1, 1)))
    own = shape_of(data)[:2]
    is_fixed = least == (side, side)  # as of transformers
    if is_fixed or own[0] < least[0] or own[1] < least[1]:
        return Sight(size=least)
    return Sight()
