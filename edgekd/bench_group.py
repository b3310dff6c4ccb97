"""Shares one batch among several devices of one kind, each measuring its part.

The devices must be equal in everything that a table is keyed by. Which models are measured is the caller's to say.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack

from device_agents.device import Device
from edgekd.bench import ROUNDS, Bench, MeasuringFailed, Model
from edgekd.holding import Holding
from latency_tables.schema import Measurement, TableKey

_ALIKE_PERCENT = 5.0  # a device's own sentinel repeats to 1 to 2 %


class BenchGroup(Holding):
    """One or more devices held for measuring and left as they were found; use it as a context manager.

    To enter it raises MeasuringFailed where two of them differ in what a table is keyed by, and DeviceError where one
    cannot be opened.
    """

    def __init__(self, devices: Sequence[Device], on_warning: Callable[[str], None]) -> None:
        super().__init__()
        self._benches = [Bench(device, on_warning) for device in devices]
        self._on_warning = on_warning

    def _take(self, stack: ExitStack) -> None:
        for bench in self._benches:
            stack.enter_context(bench)
        for bench in self._benches[1:]:
            if differences := self.key.differences(bench.key):
                serials = f"{self._benches[0].device.serial} and {bench.device.serial}"
                raise MeasuringFailed(
                    f"devices {serials} cannot share one table: {differences[0]}; choose one with --serial"
                )

    @property
    def key(self) -> TableKey:
        """Say under which conditions all of these measure."""
        return self._benches[0].key

    def measure(self, models: Iterable[Model], rounds: int = ROUNDS) -> Iterator[Measurement]:
        """Measure every model on one of the devices; rows come as any of them gives them. Raises as Bench.measure."""
        if len(self._benches) == 1:
            yield from self._benches[0].measure(models, rounds)
            return
        listed = [self._kept_waiting(model) for model in models]
        shares = [listed[at :: len(self._benches)] for at in range(len(self._benches))]
        pairs = zip(self._benches, shares, strict=True)
        parts = [_Part(bench, share, rounds) for bench, share in pairs if share]
        yield from _merged(parts)
        self._compare(parts)

    def _kept_waiting(self, model: Model) -> Model:
        """Give a model that was just made, for which all devices had to wait."""
        for bench in self._benches:
            bench.still_here()
        return model

    def _compare(self, parts: Sequence[_Part]) -> None:
        """Say when one device is slower than another, each at its best: their rows speak of two speeds."""
        for name in sorted({name for part in parts for name in part.sentinel_ns}):
            known = sorted((p.sentinel_ns[name], p.bench.device.serial) for p in parts if name in p.sentinel_ns)
            (fast_ns, fast), (slow_ns, slow) = known[0], known[-1]
            percent = 100 * (slow_ns / fast_ns - 1)
            if percent > _ALIKE_PERCENT:
                serials = f"{slow} is {percent:.0f} % slower than {fast}"
                self._on_warning(f"device {serials}, and one table holds rows of both; choose one with --serial")
                break  # said once


class _Part:
    """One device's share, measured in a thread of its own."""

    def __init__(self, bench: Bench, models: Sequence[Model], rounds: int) -> None:
        self.bench = bench
        self.models = models
        self.rounds = rounds
        self.sentinel_ns: dict[str, int] = {}  # the fastest of each sentinel; "" is the micro-model

    def run(self, rows: queue.Queue[Measurement | BaseException | None], stop: threading.Event) -> None:
        """Put every row in the queue, then None, or what went wrong."""
        try:
            for row in self.bench.measure(self.models, self.rounds):
                if row.sentinel_ns:
                    before_ns = self.sentinel_ns.get(row.beside, row.sentinel_ns)
                    self.sentinel_ns[row.beside] = min(before_ns, row.sentinel_ns)
                rows.put(row)
                if stop.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
            rows.put(error)
        else:
            rows.put(None)


def _merged(parts: Sequence[_Part]) -> Iterator[Measurement]:
    """Give rows as they come; once a device fails the others stop at their next row, and its error is raised."""
    rows: queue.Queue[Measurement | BaseException | None] = queue.Queue()
    stop = threading.Event()
    threads = [threading.Thread(target=part.run, args=(rows, stop)) for part in parts]
    for thread in threads:
        thread.start()
    failed: BaseException | None = None
    try:
        for _ in range(len(threads)):
            while isinstance(row := rows.get(), Measurement):
                yield row
            if row is not None:
                failed = failed or row
                stop.set()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if failed is not None:
        raise failed
