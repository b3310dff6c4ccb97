"""An event loop in a thread of its own, for a library that is asynchronous and callers that are not.

A caller waits for its coroutine as for a function; a Ctrl-C while it waits cancels the coroutine, not the loop.
It knows nothing of SSH. Read next: `ssh.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from device_agents.errors import TransportError

_END_S = 10.0  # what is cancelled has this long to give back what it holds
_REAP_S = 1.0  # a killed child ends at once; without this wait asyncio would complain of a closed loop

T = TypeVar("T")


class LoopThread:
    """An event loop that runs from the first call on; its thread never keeps the interpreter from ending."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end and return what it returns or raise what it raises."""
        if self._closed:
            work.close()
            raise TransportError(f"the way to {self._name} is closed; open a new one")
        future = asyncio.run_coroutine_threadsafe(work, self._running())
        try:
            return future.result()
        finally:
            future.cancel()  # has no effect unless a Ctrl-C ended the wait

    def soon(self, work: Callable[[], object]) -> None:
        """Run a function in the loop's thread and do not wait for it; after `close` nothing runs."""
        if self._loop is not None and not self._closed:
            self._loop.call_soon_threadsafe(work)

    def close(self) -> None:
        """Cancel what still runs and end the thread; harmless twice."""
        loop, thread, self._closed = self._loop, self._thread, True
        self._loop = self._thread = None
        if loop is None or thread is None:
            return
        try:
            with contextlib.suppress(TimeoutError):  # what does not end by then ends with the program
                asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(_END_S)
                _await_children()
                asyncio.run_coroutine_threadsafe(_settle(), loop).result(_END_S)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_END_S)
            if not thread.is_alive():
                loop.close()

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._loop.set_exception_handler(_complain)
            self._thread = threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True)
            self._thread.start()
        return self._loop


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report what went wrong in the loop, but for the many writes of one copy that break with its link.

    Their copy has told of it once, and nobody asks the others.
    """
    if "never retrieved" not in context["message"]:
        loop.default_exception_handler(context)


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_END_S / 2)


async def _settle() -> None:
    for _ in range(3):  # a child's end is passed on twice in the loop
        await asyncio.sleep(0)


def _await_children() -> None:
    """Wait for asyncio's threads that wait for child processes (a ProxyCommand): they report to the loop."""
    for thread in threading.enumerate():
        if "waitpid-" in thread.name:  # the word that all versions of asyncio have in it
            thread.join(_REAP_S)
