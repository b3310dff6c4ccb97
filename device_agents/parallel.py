"""Asks many devices at once, so that a dead one does not hold up the others.

Threads, because transports block; daemons, because one that hangs in a dead driver must not keep the program alive.
Read next: `inventory.py`, which asks.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from device_agents.errors import DeviceError, TransportTimeout

T = TypeVar("T")
R = TypeVar("R")
_WORKERS = 16  # connections opened at once; more than a desk holds devices


def in_parallel(items: Sequence[T], ask: Callable[[T], R], limit_s: float) -> list[R | DeviceError]:
    """Ask every item in threads and return, in their order, what each gave or the DeviceError that it raised.

    What has not ended within limit_s counts as TransportTimeout and is left to itself; any other error is raised.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[int, R | Exception]] = queue.SimpleQueue()
    for number in range(len(items)):
        waiting.put(number)
    for _ in range(min(_WORKERS, len(items))):
        threading.Thread(target=_work, args=(items, ask, waiting, answers), daemon=True).start()
    found: dict[int, R | DeviceError] = {}
    deadline = time.monotonic() + limit_s
    while len(found) < len(items):
        try:
            number, answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if isinstance(answer, Exception) and not isinstance(answer, DeviceError):
            raise answer
        found[number] = answer
    late = TransportTimeout(f"did not answer within {limit_s:g} s; is it switched on and in reach?")
    return [found.get(number, late) for number in range(len(items))]


def _work(
    items: Sequence[T],
    ask: Callable[[T], R],
    waiting: queue.SimpleQueue[int],
    answers: queue.SimpleQueue[tuple[int, R | Exception]],
) -> None:
    while True:
        try:
            number = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            answers.put((number, ask(items[number])))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where it is waited for
            answers.put((number, error))
