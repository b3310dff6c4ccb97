"""Taking evaluations over from another study, and seeing that predictions in a file are those of the table at hand.

Both ask for the latencies of all samples of a file at once. The file's form is study_file.py's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgekd.search.errors import OtherStudy
from edgekd.search.latency import LatencyModel
from edgekd.search.study_file import MEASURED, WARM, Sample, StudyHeader, StudyRecord, load_study
from latency_tables.errors import FileDamaged

_ROUNDING = 1e-6  # relative; sums of the same numbers in another order differ by far less


def warm_samples(source: Path, header: StudyHeader, latency: LatencyModel) -> list[Sample]:
    """Give the evaluations of a study in the file `source` as first samples of the one that `header` begins.

    Predictions are those of the table at hand, rewards those at the first target. Failures are not taken over: they
    may have been the machine's.

    Raises:
        OtherStudy: space, data, teacher or proxy differ, so that accuracies do not compare.
        FileDamaged, OtherVersion: the file is missing or damaged, or of another version.

    """
    other = load_study(source)
    for difference in _differences(other.header, header):
        raise OtherStudy(
            f"the study cannot start from {source}: {difference}; name one of the same space, data, teacher and proxy"
        )
    kept = [sample for sample in other.samples if not sample.failure]
    settings = header.settings
    predicted = _predicted(kept, latency)
    made: list[Sample] = []
    for index, (sample, predicted_ms) in enumerate(zip(kept, predicted, strict=True)):
        measured_ms = sample.measured_ms if settings.latency == MEASURED else None
        moved = replace(sample, index=index, predicted_ms=predicted_ms, measured_ms=measured_ms, target=WARM)
        latency_ms = moved.latency_ms(settings.target_dtype)
        reward = settings.reward(moved.proxy_accuracy, latency_ms, settings.targets_ms[0])
        made.append(replace(moved, reward=reward))
    return made


def _differences(found: StudyHeader, wanted: StudyHeader) -> Iterator[str]:
    pairs: dict[str, tuple[object, object]] = {
        "space": (found.space, wanted.space),
        "content of the space": (found.space_sha256, wanted.space_sha256),
    }
    free = set()
    if wanted.settings.latency == MEASURED:
        pairs["latency"] = (found.settings.latency, MEASURED)
        pairs["target_dtype"] = (found.settings.target_dtype, wanted.settings.target_dtype)
    else:
        free = {"table_sha256"}  # predictions are made anew
    names = [name for name in {**wanted.identity, **found.identity} if name not in free]
    pairs |= {name: (found.identity.get(name), wanted.identity.get(name)) for name in names}
    for name, (there, here) in pairs.items():
        if isinstance(there, dict) and isinstance(here, dict):
            inner = next((key for key in {**there, **here} if there.get(key) != here.get(key)), "")
            if inner:
                yield f"its {name}.{inner} is {there.get(inner)!r}, not {here.get(inner)!r}"
        elif there != here:
            yield f"its {name} is {there!r}, not {here!r}"


def check_predictions(path: Path, record: StudyRecord, latency: LatencyModel) -> None:
    """See that a file's predictions are what the table says.

    Raises:
        FileDamaged: one is not; the message names its line.

    """
    for sample, predicted_ms in zip(record.samples, _predicted(record.samples, latency), strict=True):
        for dtype, ms in predicted_ms.items():
            if abs(ms - sample.predicted_ms[dtype]) > _ROUNDING * ms:
                found = f"predicted_ms of {dtype} is {sample.predicted_ms[dtype]!r}, but the table says {ms!r}"
                raise FileDamaged(path, record.line_of(sample.index), found)


def _predicted(samples: Sequence[Sample], latency: LatencyModel) -> list[dict[str, float]]:
    """Predict all samples in every dtype; → as many dictionaries."""
    if not samples:
        return []
    choices = np.array([sample.choices for sample in samples])  # (N, decisions)
    columns = {dtype: latency.arrays(dtype).predict_ms(choices).tolist() for dtype in latency.predictors}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
