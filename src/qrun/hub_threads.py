"""Calls that wait for the network, several at a time, in threads that hold up nobody's exit.

Daemon threads, not `concurrent.futures`: that joins its threads when the interpreter ends, so that after Ctrl-C the
prompt would return only when the last of them had its answer or its timeout.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["in_threads"]

T = TypeVar("T")


def in_threads(calls: Sequence[Callable[[], T]], *, most: int) -> list[T]:
    """The results of all calls in their order, at most `most` at a time.

    The first error, by order, is raised after all have ended. KeyboardInterrupt returns at once, and no further call
    is begun.
    """
    if len(calls) <= 1:
        return [call() for call in calls]
    work = _Work(calls)
    threads = [threading.Thread(target=work.run, name="qrun-hub", daemon=True) for _ in range(min(most, len(calls)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        work.stop()
        raise
    return work.results()


class _Work(Generic[T]):
    """The calls that are left, and what came of those that are done."""

    def __init__(self, calls: Sequence[Callable[[], T]]) -> None:
        self._calls = calls
        self._left = iter(range(len(calls)))
        self._lock = threading.Lock()
        self._results: dict[int, T] = {}
        self._errors: dict[int, BaseException] = {}

    def run(self) -> None:
        """Take one call after another until none is left."""
        while (index := self._next()) is not None:
            try:
                self._results[index] = self._calls[index]()
            except BaseException as error:  # noqa: BLE001 - raised where the results are asked for
                self._errors[index] = error

    def stop(self) -> None:
        """Begin no further call."""
        with self._lock:
            self._left = iter(range(0))

    def results(self) -> list[T]:
        """All results in order. Raises the first error by order."""
        if self._errors:
            raise self._errors[min(self._errors)]
        return [self._results[index] for index in range(len(self._calls))]

    def _next(self) -> int | None:
        with self._lock:
            return next(self._left, None)
