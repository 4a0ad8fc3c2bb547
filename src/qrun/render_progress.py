"""Bytes on their way, shown on a terminal's stderr: done, rate and time left, for each file and in all.

In a pipe nothing is shown. Bytes that an earlier run had fetched count as done and never as fast.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

from qrun.source import Advance, Report, quiet
from qrun.units import size

__all__ = ["Meter", "Row", "Transfer", "show_transfer"]

# Long enough for a pause not to promise hours, short enough to tell of now.
_WINDOW_S = 15.0
_REDRAWS_PER_S = 5.0
_BAR_WIDTH = 20
_MOST_ROWS = 8  # files; more would scroll a small terminal


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the display."""

    name: str
    done_bytes: int
    total_bytes: int
    line: str


class Meter:
    """How far `total_bytes` are, and how fast: the rate is that of the last seconds, from the first report on."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.done_bytes = 0
        self._seen: deque[tuple[float, int]] = deque()

    def start(self, done_bytes: int, now_s: float) -> None:
        """Count bytes that were there before; `now_s` is any clock in seconds."""
        self.done_bytes += done_bytes
        self._seen = deque((at, done + done_bytes) for at, done in self._seen) or deque([(now_s, self.done_bytes)])

    def add(self, n_bytes: int, now_s: float) -> None:
        """Count bytes that came just now. Less than none: a piece that has to be fetched again."""
        self.done_bytes += n_bytes
        self._seen.append((now_s, self.done_bytes))
        while len(self._seen) > 2 and self._seen[1][0] <= now_s - _WINDOW_S:  # noqa: PLR2004  # two ends of a window
            self._seen.popleft()

    def bytes_per_s(self, now_s: float) -> float | None:
        """The rate; None while there is nothing to tell it from."""
        if not self._seen:
            return None
        since, done_before = self._seen[0]
        came = self.done_bytes - done_before
        return came / (now_s - since) if came > 0 and now_s > since else None

    def left_s(self, now_s: float) -> float | None:
        """The time left at that rate."""
        rate = self.bytes_per_s(now_s)
        return max(0, self.total_bytes - self.done_bytes) / rate if rate else None


class Transfer:
    """What is under way: a meter for each file and one for all. It is reported to from several threads."""

    def __init__(self, total_bytes: int, n_files: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._in_all = Meter(total_bytes)
        self._n_files = n_files
        self._files: dict[tuple[str, str], Meter] = {}
        self._clock = clock
        self._lock = threading.Lock()

    def __call__(self, advance: Advance) -> None:
        """Take note of how far a file is."""
        with self._lock:
            now_s = self._clock()
            meter = self._files.get((advance.repo_id, advance.path))
            if meter is None:
                meter = self._files[advance.repo_id, advance.path] = Meter(advance.total_bytes)
                meter.start(advance.done_bytes, now_s)
                self._in_all.start(advance.done_bytes, now_s)
                return
            came = advance.done_bytes - meter.done_bytes
            meter.add(came, now_s)
            self._in_all.add(came, now_s)

    def rows(self) -> list[Row]:
        """The files that are on their way, the one that began last at the end; behind them all together."""
        with self._lock:
            now_s = self._clock()
            under_way = [(path, one) for (_, path), one in self._files.items() if one.done_bytes < one.total_bytes]
            rows = [_row(PurePosixPath(path).name, one, now_s) for path, one in under_way[-_MOST_ROWS:]]
            if self._n_files > 1:
                done = sum(one.done_bytes >= one.total_bytes for one in self._files.values())
                rows.append(_row(f"{done} of {self._n_files} files", self._in_all, now_s))
            return rows


@contextmanager
def show_transfer(total_bytes: int, n_files: int) -> Iterator[Report]:
    """A report of `n_files` files of `total_bytes` in all, shown on a terminal."""
    if not sys.stderr.isatty():
        yield quiet
        return
    from rich.console import Console
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    transfer = Transfer(total_bytes, n_files)

    def drawn() -> Table:
        table = Table.grid(padding=(0, 1))
        for _ in ("name", "bar", "figures"):
            table.add_column(no_wrap=True)
        for row in transfer.rows():
            bar = ProgressBar(max(1, row.total_bytes), row.done_bytes, width=_BAR_WIDTH)
            table.add_row(row.name, bar, row.line)
        return table

    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    with Live(get_renderable=drawn, console=console, transient=True, refresh_per_second=_REDRAWS_PER_S):
        yield transfer


def _row(name: str, meter: Meter, now_s: float) -> Row:
    return Row(name, meter.done_bytes, meter.total_bytes, _line(meter, now_s))


def _line(meter: Meter, now_s: float) -> str:
    """`1.2 GiB of 4.7 GiB, 98.3 MiB/s, 0:36 left`; what is unknown is left out."""
    parts = [f"{size(meter.done_bytes)} of {size(meter.total_bytes)}"]
    rate, left_s = meter.bytes_per_s(now_s), meter.left_s(now_s)
    if rate is not None and left_s:
        parts += [f"{size(round(rate))}/s", f"{_clock(left_s)} left"]
    return ", ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
