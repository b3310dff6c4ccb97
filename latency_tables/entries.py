"""What the lines of a table file hold: entries in, checked measurements, networks and calibrations out, and back.

Nothing in an entry is trusted: every field must be there, of its type and in its range, and no other. ValueError,
TypeError or OpSyntaxError say what is wrong; store.py adds the file and the line. Files are not read here.
"""

from __future__ import annotations

import dataclasses
import operator
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latency_tables.calibrate import Calibration
from latency_tables.op_spec import DTYPES, check_key
from latency_tables.schema import Measurement, Network

MAX_NS = 10**15  # eleven days; no inference takes that long
_MAX_NUMBER = 1e12  # coefficients in ms and temperatures are far below
_MAX_WORDS = 200  # characters of a text in a calibration

MEASURED, SIMULATED, IMPORTED = "measured", "simulated", "imported:"


@dataclass(frozen=True, slots=True)
class Row:
    """An operator's measurement."""

    measurement: Measurement


@dataclass(frozen=True, slots=True)
class Fit:
    """A calibration of networks of a dtype; None where another edgekd fitted it in another way."""

    dtype: str
    calibration: Calibration | None


Line = Row | Network | Fit


def read_entry(entry: Mapping[str, Any], *, old: bool = False) -> Line:
    """Read a line's entry. With `old`, a calibration of other fields is no error but says nothing.

    Raises:
        ValueError, TypeError, OpSyntaxError: the entry is not one that `write_entry` makes.

    """
    fields = dict(entry)
    kind = fields.pop("type", None)
    if kind == "row":
        row = _measurement(fields)
        check_key(row.subject)
        return Row(row)
    if kind == "network":
        return _network(fields)
    if kind == "calibration":
        return _fit(fields, old=old)
    if kind is None and "format" in fields:
        raise ValueError("another table begins here; join tables with: edgekd table merge")
    raise ValueError("field 'type' is missing" if kind is None else f"unknown entry type {short(kind)}")


def write_entry(line: Row | Network | Fit) -> dict[str, Any]:
    """Spell a line's entry."""
    if isinstance(line, Row):
        return {"type": "row", **_measured(line.measurement)}
    if isinstance(line, Network):
        return {"type": "network", **dataclasses.asdict(line), "measurement": _measured(line.measurement)}
    if line.calibration is None:
        raise ValueError(f"there is no calibration of {line.dtype} to write")
    return {"type": "calibration", "dtype": line.dtype, **dataclasses.asdict(line.calibration)}


# --- measurements -----------------------------------------------------------------------------------------------------

_MEASUREMENT = frozenset(field.name for field in dataclasses.fields(Measurement))
_ALONE = _MEASUREMENT - {"beside", "beside_ns"}  # which are left out where nothing was beside it; since version 7
_INTEGERS = {int}  # and not bool
_COUNTS = ("inferences_per_sample", "warmup_ns", "init_ns", "peak_rss_bytes", "sentinel_ns", "attempt")
_TEXTS = ("subject", "started_at", "source")
_counts_of, _texts_of = operator.itemgetter(*_COUNTS), operator.itemgetter(*_TEXTS)


def _measurement(fields: dict[str, Any]) -> Measurement:
    """Check a measurement. A table has thousands, so what is done for each is few calls, and loops are those of C."""
    _check_names(fields, _MEASUREMENT if "beside" in fields else _ALONE)
    samples = _times(fields["samples_ns"], "samples_ns")
    wall = _times(fields["wall_samples_ns"], "wall_samples_ns")
    if not samples or len(samples) != len(wall):
        raise ValueError(f"{len(samples)} samples and {len(wall)} wall samples; there must be one of each, and some")
    if not _are_integers(_counts_of(fields)):
        name = next(name for name in _COUNTS if not _are_integers([fields[name]]))
        raise ValueError(f"{name} is {short(fields[name])}, not an integer from 0 to {MAX_NS}")
    if set(map(type, _texts_of(fields))) != {str}:
        name = next(name for name in _TEXTS if not isinstance(fields[name], str))
        raise TypeError(f"{name} is {short(fields[name])}, not text")
    if not fields["inferences_per_sample"]:
        raise ValueError("a count of inferences is not above 0")
    fields["samples_ns"], fields["wall_samples_ns"] = samples, wall
    fields["temperatures_c"] = tuple([_number(t, "temperatures_c") for t in _list(fields, "temperatures_c")])
    fields["flags"] = _texts(fields, "flags")
    check_source(fields["source"])
    if "beside" in fields:
        fields["beside_ns"] = _beside(fields)
    return Measurement(**fields)


def _measured(measurement: Measurement) -> dict[str, Any]:
    """Spell a measurement, without what was beside it where nothing was."""
    fields = dataclasses.asdict(measurement)
    return fields if measurement.beside_ns else {name: fields[name] for name in fields if name in _ALONE}


def _beside(fields: Mapping[str, Any]) -> tuple[int, ...]:
    beside, beside_ns, samples = fields["beside"], _times(fields["beside_ns"], "beside_ns"), len(fields["samples_ns"])
    if type(beside) is not str or not beside or not beside_ns or samples % len(beside_ns):
        raise ValueError(f"{samples} samples beside {len(beside_ns)} of {short(beside)}")
    return beside_ns


def check_source(source: str) -> None:
    """See that a source is one that a number may come from.

    Raises:
        ValueError: it is none of measured, simulated and imported:CITATION.

    """
    if source not in (MEASURED, SIMULATED) and not (source.startswith(IMPORTED) and source[len(IMPORTED) :].strip()):
        raise ValueError(f"source {short(source)} is not measured, simulated or imported:CITATION")


def _network(fields: dict[str, Any]) -> Network:
    _check_names(fields, {"name", "dtype", "op_keys", "measurement"})
    keys = _texts(fields, "op_keys")
    for key in set(keys):
        check_key(key)
    if not isinstance(fields["measurement"], dict):
        raise TypeError(f"measurement is {short(fields['measurement'])}, not an object")
    measurement = _measurement(dict(fields["measurement"]))
    if not keys or fields["name"] != measurement.subject:
        name = short(fields["name"])
        raise ValueError(f"network {name} has no operators or another subject, {short(measurement.subject)}")
    return Network(measurement.subject, _dtype(fields["dtype"]), keys, measurement)


# --- calibrations -----------------------------------------------------------------------------------------------------


def _fit(fields: dict[str, Any], *, old: bool) -> Fit:
    """Read a calibration by the fields that it has today; those with a default may be absent."""
    dtype = _dtype(fields.pop("dtype", None))
    known = {field.name: field for field in dataclasses.fields(Calibration)}
    needed = {name for name, field in known.items() if field.default is dataclasses.MISSING}
    if old and not needed <= fields.keys() <= known.keys():
        for name, value in fields.items():
            _number(value, name)
        return Fit(dtype, None)
    _check_names(fields, needed | (fields.keys() & known.keys()))
    values: dict[str, Any] = {n: _of_type(value, n, str(known[n].type)) for n, value in fields.items()}
    return Fit(dtype, Calibration(**values))


def _of_type(value: object, name: str, kind: str) -> float | int | str:
    if kind == "str":
        if not isinstance(value, str) or len(value) > _MAX_WORDS:
            raise TypeError(f"{name} is {short(value)}, not a short text")
        return value
    number = _number(value, name)
    if kind != "int":
        return number
    if type(value) is not int:
        raise TypeError(f"{name} is {short(value)}, not a whole number")
    return value


def _dtype(value: object) -> str:
    if value not in DTYPES:
        raise ValueError(f"dtype {short(value)} is not one of {', '.join(DTYPES)}")
    return str(value)


# --- parts ------------------------------------------------------------------------------------------------------------


def _check_names(fields: Mapping[str, Any], wanted: Iterable[str]) -> None:
    if fields.keys() == (names := frozenset(wanted)):
        return
    missing, unknown = sorted(names - fields.keys()), sorted(fields.keys() - names)
    what = f"field {missing[0]!r} is missing" if missing else f"unknown field {short(unknown[0])}"
    raise ValueError(what)


def _times(values: object, name: str) -> tuple[int, ...]:
    """Check samples, two thirds of what a table file holds."""
    if not isinstance(values, list | tuple) or (values and not _are_times(values) and not _are_integers(values)):
        raise ValueError(f"{name} holds something else than integers from 0 to {MAX_NS}")
    if values and not min(values):
        raise ValueError(f"{name} holds a time that is not above 0")
    return tuple(values)


def _are_times(values: Sequence[Any]) -> bool:
    """Tell quickly of almost all right samples that they are: with a float the sum is none of int, with anything else
    there is no sum, and True is not above 1.
    """
    try:
        total = sum(values)
    except TypeError:
        return False
    return type(total) is int and total <= MAX_NS and min(values) > 1


def _are_integers(values: Sequence[Any]) -> bool:
    return set(map(type, values)) == _INTEGERS and min(values) >= 0 and max(values) <= MAX_NS


def _list(fields: Mapping[str, Any], name: str) -> list[Any] | tuple[Any, ...]:
    values = fields[name]
    if not isinstance(values, list | tuple):
        raise TypeError(f"{name} is {short(values)}, not a list")
    return values


def _texts(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = _list(fields, name)
    if values and set(map(type, values)) != {str}:
        raise TypeError(f"{name} is {short(values)}, not a list of texts")
    return tuple(values)


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} holds something else than numbers: {short(value)}")  # noqa: TRY004 - as of any other value
    if not abs(value) <= _MAX_NUMBER:  # said this way round, it is false for NaN too
        raise ValueError(f"{name} holds a number that is not finite or absurdly large: {short(value)}")
    return float(value)


def short(value: object) -> str:
    """Spell a value in few characters, however large it is or deep it goes."""
    return reprlib.repr(value)
