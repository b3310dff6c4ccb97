"""The commands `edgekd table ...`: check, show, compare, join, exchange and simulate latency tables.

What they do is in latency_tables; this file reads options and words results. Like cli.py it imports inside its
functions, so that --help starts at once.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.cli_output import print_result
from edgekd.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from latency_tables.check import Report
    from latency_tables.diff import Difference
    from latency_tables.schema import Measurement, TableKey
    from latency_tables.store import LatencyTable

_FORMS = ("ofa-yaml", "fbnet", "csv")  # of latency_tables/importers.py, named here so that --help need not load it
_FEW = 10
_NETWORK = "network"
_MAX_WORDS = 300  # characters of a citation


def register(commands: Any) -> None:
    """Add `table` and its actions to the parser's commands."""
    from edgekd.cli_simulate import add_simulate, simulate

    table = commands.add_parser(
        "table",
        help="check, show, compare, join and exchange latency tables",
        description="Check, show, compare, join and exchange latency tables.",
    )
    actions = table.add_subparsers(metavar="ACTION", required=True)
    check = _add(actions, "check", check_one, "see whether a table is whole, and what it holds")
    check.add_argument("file", type=Path, metavar="FILE")
    show = _add(actions, "show", show_one, "list a table's rows")
    show.add_argument("file", type=Path, metavar="FILE")
    show.add_argument("--kind", help="only the operators of this kind, such as conv_2d, or network")
    show.add_argument("--sort", choices=("ms", "name"), default="ms", help="the slowest first, or by name")
    diff = _add(actions, "diff", diff_two, "say in what two tables differ")
    diff.add_argument("a", type=Path, metavar="A")
    diff.add_argument("b", type=Path, metavar="B")
    merge = _add(actions, "merge", merge_all, "join tables that were measured under one key into a new one")
    merge.add_argument("out", type=Path, metavar="OUT")
    merge.add_argument("files", type=Path, nargs="+", metavar="FILE")
    _register_exchange(actions)
    add_simulate(_add(actions, "simulate", simulate, "work out a table for a device that is not at hand"))


def _register_exchange(actions: Any) -> None:
    export = _add(actions, "export", export_one, "write a table's rows as other tools read them")
    export.add_argument("file", type=Path, metavar="FILE")
    export.add_argument("--to", choices=_FORMS, required=True, dest="form", help="the other tool's format")
    export.add_argument("out", type=Path, metavar="OUT")
    import_ = _add(actions, "import", import_one, "read another tool's table into a new one of ours")
    import_.add_argument("file", type=Path, metavar="IN")
    import_.add_argument("--from", choices=_FORMS, required=True, dest="form", help="the other tool's format")
    import_.add_argument("--citation", required=True, metavar="TEXT", help="where it is from; every row bears it")
    import_.add_argument("--device", required=True, metavar="NAME", help="what it was measured on")
    import_.add_argument("--dtype", default="float32", help="dtype of the rows of an ofa-yaml file")
    for name in ("build-fingerprint", "runtime", "runtime-version", "delegate"):
        import_.add_argument(f"--{name}", default="unknown", metavar="TEXT", help="for the table's key, where known")
    import_.add_argument("--threads", type=int, default=1, help="for the table's key (default: 1)")
    import_.add_argument("out", type=Path, metavar="OUT")


def _add(actions: Any, name: str, command: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    added.add_argument("--format", choices=("text", "json"), default="text", help="how the result is printed on stdout")
    added.set_defaults(command=command)
    return added


def _print(result: Any, text: Sequence[str], form: str) -> None:
    """Print a result; what a file says may hold anything, and no terminal shall obey it."""
    print_result(result, ["".join(c if c.isprintable() else "�" for c in line) for line in text], form)


def _unmeasured_lines(sources: dict[str, int]) -> list[str]:
    return [f"  ! not measured on this device: {count} rows are {source}" for source, count in sources.items()]


# --- check ------------------------------------------------------------------------------------------------------------


def check_one(options: argparse.Namespace) -> None:
    """Print what a table holds; raises FileDamaged with the line and reason when it cannot be trusted."""
    from latency_tables.check import inspect

    report = inspect(options.file)
    _print(_check_result(report), _check_text(report), options.format)


def _check_result(report: Report) -> dict[str, Any]:
    rows = [{"kind": kind, "dtype": dtype, "rows": count} for (kind, dtype), count in report.rows.items()]
    fits = {dtype: dataclasses.asdict(fit) for dtype, fit in report.calibrations.items()}
    fields = {f.name: getattr(report, f.name) for f in dataclasses.fields(report)}
    more = {"key": dataclasses.asdict(report.key), "unmeasured": report.unmeasured}
    return fields | more | {"path": str(report.path), "rows": rows, "calibrations": fits}


def _check_text(report: Report) -> list[str]:
    how = "every line has a checksum" if report.sealed else "begun by an older edgekd, without checksums"
    found = "is whole" if report.rows else "is whole, and holds no operator"
    lines = [f"{report.path}: {found}; version {report.version}, {report.size_bytes / 1e6:.2f} MB, {how}"]
    lines.append("  key: " + ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(report.key).items()))
    lines.append(f"  {sum(report.rows.values())} operators")
    lines += [f"    {count:6}  {kind} {dtype}" for (kind, dtype), count in report.rows.items()]
    networks = ", ".join(f"{count} {dtype}" for dtype, count in report.networks.items())
    lines.append(f"  whole networks: {networks or 'none'}")
    lines += _calibration_lines(report)
    attempts = ", ".join(f"{_times(number)}: {count}" for number, count in report.attempts.items())
    lines.append(f"  measured: from {report.first_at or 'an unknown time'} to {report.last_at or 'an unknown time'}")
    lines.append(f"  measured {attempts or 'nothing'}; flagged as disturbed every time: {len(report.disturbed)}")
    lines += [f"    {subject}" for subject in report.disturbed[:_FEW]]
    if report.cut_bytes:
        advice = "it is dropped when the table is completed, which measures it again"
        lines.append(f"  ! the last line was cut by a kill after {report.cut_bytes} bytes: {advice}")
    return lines + _unmeasured_lines(report.unmeasured)


def _calibration_lines(report: Report) -> list[str]:
    from latency_tables.check import errors_of

    lines = []
    for dtype, fit in report.calibrations.items():
        errors = (f"{name.replace('_', ' ')} {100 * value:.2g} %" for name, value in errors_of(fit).items())
        lines.append(f"  calibrated for {dtype}: {', '.join(errors)}")
    lines += [
        f"  ! the calibration for {d} is of an older form: fitted again by edgekd profile" for d in report.outdated
    ]
    return lines or ["  not calibrated"]


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


# --- show -------------------------------------------------------------------------------------------------------------


def show_one(options: argparse.Namespace) -> None:
    """Print a table's rows, operators and whole networks."""
    from latency_tables.check import kind_and_dtype
    from latency_tables.store import load_table

    table = load_table(options.file)
    kinds = {subject: kind_and_dtype(subject)[0] for subject in table.rows} | dict.fromkeys(table.networks, _NETWORK)
    if options.kind and options.kind not in kinds.values():
        raise UnknownName("kind", options.kind, set(kinds.values()))
    shown = [m for m in table.measurements if options.kind in (None, kinds[m.subject])]
    speed = table.speed
    rows = [_row_result(measurement, speed.quiet_ms(measurement)) for measurement in shown]
    rows.sort(key=(lambda row: row["subject"]) if options.sort == "name" else (lambda row: -row["ms"]))
    result = {"table": str(options.file), "unmeasured": table.unmeasured, "rows": rows}
    head = f"{'ms':>12} {'median':>12} {'spread':>7} {'samples':>7} {'attempts':>8}  source    subject, flags"
    _print(result, [*_unmeasured_lines(table.unmeasured), head, *map(_row_line, rows)], options.format)


def _row_result(row: Measurement, ms: float) -> dict[str, Any]:
    return {
        "subject": row.subject,
        "ms": ms,
        "median_ms": row.median_ms,
        "spread": _spread(row),
        "samples": len(row.samples_ns),
        "attempts": row.attempt,
        "started_at": row.started_at,
        "source": row.source,
        "flags": list(row.flags),
    }


def _spread(row: Measurement) -> float | None:
    """Give the spread of the samples as a share of their median; a single sample has none."""
    from latency_tables.diff import spread_ms

    return spread_ms(row) / row.median_ms if len(row.samples_ns) > 1 else None


def _row_line(row: Mapping[str, Any]) -> str:
    share = row["spread"]
    spread = "-" if share is None else f"{100 * share:.1f} %"
    source = row["source"].partition(":")[0]
    flags = f"  [{', '.join(row['flags'])}]" if row["flags"] else ""
    times = f"{row['ms']:12.6f} {row['median_ms']:12.6f} {spread:>7} {row['samples']:7} {row['attempts']:8}"
    return f"{times}  {source:9} {row['subject']}{flags}"


# --- diff and merge ---------------------------------------------------------------------------------------------------


def diff_two(options: argparse.Namespace) -> None:
    """Print in what two tables differ."""
    from latency_tables.diff import compare
    from latency_tables.store import load_table

    tables = (load_table(options.a), load_table(options.b))
    difference = compare(*tables)
    ratios = difference.ratios
    result = {
        "key": list(difference.key),
        "only_a": list(difference.only_a),
        "only_b": list(difference.only_b),
        "both": len(difference.both),
        "ratios": dataclasses.asdict(ratios) if ratios else None,
        "beyond_noise": [{**dataclasses.asdict(p), "ratio": p.ratio} for p in difference.beyond_noise],
        "unmeasured": [table.unmeasured for table in tables],
    }
    _print(result, _diff_text(options, difference, tables), options.format)


def _diff_text(
    options: argparse.Namespace, difference: Difference, tables: tuple[LatencyTable, LatencyTable]
) -> list[str]:
    lines = [f"A {options.a}, B {options.b}"]
    lines += [line for table in tables for line in _unmeasured_lines(table.unmeasured)]
    lines += [f"  key: {text}" for text in difference.key] or ["  the keys are equal"]
    for name, only in (("A", difference.only_a), ("B", difference.only_b)):
        lines.append(f"  {len(only)} only in {name}")
        lines += _first_of([f"    {subject}" for subject in only])
    if ratios := difference.ratios:
        lines.append(
            f"  {ratios.count} in both; B takes {ratios.geometric_mean:.3f} × A's time in the geometric mean, "
            f"{ratios.median:.3f} × in the median, {ratios.p10:.3f} to {ratios.p90:.3f} × from the 10th to the 90th "
            f"percentile, {ratios.least:.3f} to {ratios.most:.3f} × in all"
        )
    beyond = difference.beyond_noise
    lines.append(f"  {len(beyond)} of {len(difference.both)} differ beyond their noise")
    found = [f"    {p.ratio:7.3f} ×  {p.a_ms:.6f} → {p.b_ms:.6f} ms ± {p.noise_ms:.6f}  {p.subject}" for p in beyond]
    return lines + _first_of(found)


def _first_of(lines: Sequence[str]) -> list[str]:
    more = [f"    and {len(lines) - _FEW} more; --format json lists all"] if len(lines) > _FEW else []
    return [*lines[:_FEW], *more]


def merge_all(options: argparse.Namespace) -> None:
    """Join tables into a new one."""
    from latency_tables.merge import merge

    merged = merge(options.out, options.files)
    table = merged.table
    result = {
        "table": str(options.out),
        "rows": len(table.rows),
        "networks": len(table.networks),
        "joined": merged.joined,
        "refitted": list(merged.refitted),
        "uncalibrated": list(merged.uncalibrated),
        "unmeasured": table.unmeasured,
    }
    text = [f"{options.out}: {len(table.rows)} operators, {len(table.networks)} whole networks"]
    text.append(f"  {merged.joined} were in more than one table; their samples are joined")
    text += [f"  calibrated again for {dtype}" for dtype in merged.refitted]
    text += [
        f"  ! too few networks to calibrate {dtype}: complete it with edgekd profile" for dtype in merged.uncalibrated
    ]
    _print(result, text + _unmeasured_lines(table.unmeasured), options.format)


# --- export and import ------------------------------------------------------------------------------------------------


def export_one(options: argparse.Namespace) -> None:
    """Write a table's rows into a new file of another format."""
    from latency_tables.exporters import export_table
    from latency_tables.store import load_table

    table = load_table(options.file)
    count = export_table(table, options.form, options.out)
    result = {"file": str(options.out), "form": options.form, "rows": count, "unmeasured": table.unmeasured}
    text = [f"{options.out}: {count} rows as {options.form}"]
    left = (
        [f"  {len(table.networks)} whole networks and the calibrations have no place there"] if table.networks else []
    )
    _print(result, text + left + _unmeasured_lines(table.unmeasured), options.format)


def import_one(options: argparse.Namespace) -> None:
    """Read another tool's table into a new one."""
    from latency_tables.importers import Provenance, import_table
    from latency_tables.op_spec import OP_DTYPES

    if options.dtype not in OP_DTYPES:
        raise UnknownName("dtype", options.dtype, OP_DTYPES)
    citation = " ".join(options.citation.split())
    if not citation or len(citation) > _MAX_WORDS or not citation.isprintable():
        raise UsageError(f"--citation must be a text of 1 to {_MAX_WORDS} characters that says where the table is from")
    table = import_table(options.file, options.form, Provenance(citation, _key(options), options.dtype), options.out)
    result = {"table": str(options.out), "rows": len(table.rows), "unmeasured": table.unmeasured}
    text = [f"{options.out}: {len(table.rows)} rows"]
    _print(result, text + _unmeasured_lines(table.unmeasured), options.format)


def _key(options: argparse.Namespace) -> TableKey:
    from latency_tables.importers import ENGINE
    from latency_tables.schema import TableKey

    if not options.device.strip() or options.threads < 1:
        raise UsageError(f"--device {options.device!r} must be a name, and --threads {options.threads} at least 1")
    return TableKey(
        device=options.device,
        build_fingerprint=options.build_fingerprint,
        engine=ENGINE,
        runtime=options.runtime,
        runtime_version=options.runtime_version,
        delegate=options.delegate,
        threads=options.threads,
        cpu_mask="any",
        clock="wall",
    )
