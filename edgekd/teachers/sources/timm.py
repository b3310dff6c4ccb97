"""A network of timm as a teacher (extra `timm`): timm:NAME with its pretrained weights, which timm downloads or finds.

timm:NAME@FILE.safetensors takes weights of one's own, fine-tuned on this data; timm:NAME@random is untrained. Mean,
deviation and size are those of timm's pretrained configuration; the whole image is shown, nothing is cropped.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from edgekd.data.dataset import DataSet
from edgekd.errors import DataError, UnknownName
from edgekd.teachers.base import Teacher
from edgekd.teachers.fitting import check_channels, check_classes, imported, shape_of, speaking_of, torch_teacher
from edgekd.teachers.libraries import OTHER_CLASSES, RANDOM, parted, pretrained, put_weights, unknown, untrained
from edgekd.teachers.pixels import Sight


def load(text: str, sight: Sight, data: DataSet) -> Teacher:
    """Load NAME, NAME@FILE.safetensors or NAME@random.

    Raises:
        UnknownName: timm has no such network, or no such weights of it.
        DataError: its weights cannot be had, or it does not fit the data.
        MissingExtra: timm is not installed.

    """
    timm = imported("timm", "timm")
    name, weights = parted(text)
    if not timm.is_model(name):
        raise unknown("timm", name, timm.list_models())
    with speaking_of(f"timm:{name}"):
        config = _config(timm, name)
        module = _network(timm, name, weights, data)
    record = {"library": f"timm {timm.__version__}", "architecture": name, "weights": weights or f"timm's {config.tag}"}
    return torch_teacher(f"timm:{text}", module, sight.over(_sight(config, weights, data)), data, record)


def _config(timm: Any, name: str) -> Any:
    """Give what timm knows of its pretrained weights, NAME or NAME.TAG."""
    try:
        config = timm.get_pretrained_cfg(name)
    except Exception as error:  # RuntimeError, of a tag that it does not know
        architecture = name.partition(".")[0]
        known = timm.list_pretrained(f"{architecture}.*")
        raise UnknownName("pretrained weights of timm", name, [architecture, *known]) from error
    if config is None:
        raise DataError("timm knows no configuration of it; make it by a function of your own, MODULE:CALLABLE")
    return config


def _network(timm: Any, name: str, weights: str, data: DataSet) -> nn.Module:
    if not weights:
        config = timm.get_pretrained_cfg(name)
        check_classes(config.num_classes, data, OTHER_CLASSES)  # before anything is downloaded
        check_channels(config.input_size[0], data)
        return pretrained(partial(timm.create_model, name, pretrained=True))
    channels = shape_of(data)[2]
    make = partial(timm.create_model, name, pretrained=False, num_classes=data.classes, in_chans=channels)
    module = untrained(make)
    if weights != RANDOM:
        put_weights(module, Path(weights))
    return module


def _sight(config: Any, weights: str, data: DataSet) -> Sight:
    """Give what its weights learnt from; of another number of channels timm says nothing."""
    channels, *size = config.input_size
    learnt = Sight(size=(size[0], size[1]))
    if weights == RANDOM:
        return learnt if config.fixed_input_size else Sight()
    if channels != shape_of(data)[2]:
        return learnt
    return Sight(tuple(config.mean), tuple(config.std), learnt.size)
