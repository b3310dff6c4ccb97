"""Table files for tests: filled as edgekd fills them, and changed as damage or a foreign hand would."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from synthetic import CALIBRATION, KEY, conv, measurement

from latency_tables.schema import Network, TableKey
from latency_tables.store import TableFile

OPS = [conv(8), conv(16), conv(8, dtype="int8")]
NETWORK = Network("network:a", "float32", (OPS[0].key, OPS[1].key), measurement("network:a", 2500))
ROW, NET, CAL = 2, 5, 6  # lines of a filled table
# Fields of a calibration by the version that they came with; before, they were 0.
_SINCE = {5: ("far_gb_per_s", "kept_ms"), 6: ("usual_sentinel_ns",), 8: ("rows_at_once",), 9: ("at_hand_mb",)}
Edit = Callable[[dict[str, Any]], object]


def filled(path: Path, key: TableKey = KEY) -> TableFile:
    """Write a table of three rows, a network and two calibrations: lines 2 to 7."""
    file = TableFile(path, key)
    for number, op in enumerate(OPS, 1):
        file.add_row(measurement(op.key, 1000 * number))
    file.add_network(NETWORK)
    for dtype in ("float32", "int8"):
        file.add_calibration(dtype, CALIBRATION)
    return file


def plain_lines(path: Path) -> list[str]:
    """Read a table's lines without their checksums."""
    lines = path.read_text().splitlines()
    return [line[: line.rindex(',"crc":"')] + "}" if ',"crc":"' in line else line for line in lines]


def sealed(lines: Sequence[str]) -> str:
    """Put the right checksums behind lines, as someone who knows the format could."""
    whole: list[str] = []
    for line in lines:
        body = line[:-1] + ","
        seed = zlib.crc32(whole[0].encode()) if whole else 0
        whole.append(f'{body}"crc":"{zlib.crc32(body.encode(), seed):08x}"}}')
    return "\n".join(whole) + "\n"


def older(path: Path, version: int = 2) -> Path:
    """Turn a table file into one of an older version, without what that did not know of a calibration.

    Up to 2 there were no checksums, and in version 1 no engine either.
    """
    unknown = [name for since, names in _SINCE.items() if since > version for name in names]
    lines = [_without(unknown, line) for line in plain_lines(path)]
    header = json.loads(lines[0]) | {"version": version}
    if version == 1:
        del header["key"]["engine"]
    whole = [json.dumps(header, separators=(",", ":")), *lines[1:]]
    path.write_text("\n".join(whole) + "\n" if version < 3 else sealed(whole))
    return path


def _without(names: Sequence[str], line: str) -> str:
    entry = json.loads(line)
    if not any(name in entry for name in names):
        return line
    return json.dumps({key: value for key, value in entry.items() if key not in names}, separators=(",", ":"))


def rewrite(path: Path, number: int, edit: Edit) -> None:
    """Change one line's entry, with the right checksums where the file has any."""
    replace_line(path, number, lambda line: json.dumps(_edited(json.loads(line), edit)))


def replace_line(path: Path, number: int, change: Callable[[str], str]) -> None:
    """Change one line's text, with the right checksums where the file has any."""
    has_checksums = '"crc":"' in path.read_text().partition("\n")[0]
    lines = plain_lines(path)
    lines[number - 1] = change(lines[number - 1])
    path.write_text(sealed(lines) if has_checksums else "\n".join(lines) + "\n")


def _edited(entry: dict[str, Any], edit: Edit) -> dict[str, Any]:
    edit(entry)
    return entry
