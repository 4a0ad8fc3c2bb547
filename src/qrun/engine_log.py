"""An engine's log: its standard output and error in one file that only this user can read.

Each start begins a new file and keeps the one before as `NAME.1`, so that a restart does not bury why it was needed.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["EngineLog"]

_TAIL_BYTES = 64 * 1024
_MOST_BYTES = 32 * 2**20  # an engine writes 1 to 2 KB for a request: some 20,000 requests


class EngineLog:
    """One engine's log file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, first_lines: Sequence[str] = ()) -> int:
        """Begin a new file; returns a descriptor for the child to append with, the caller closes it. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.path.exists():
            self.path.replace(self._kept)
        log_fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        os.write(log_fd, "".join(f"{line}\n" for line in first_lines).encode())
        return log_fd

    def tail(self, *, after: Sequence[str] = ()) -> str:
        """The last 64 KiB without the lines that `open` began it with; empty where there is no file."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, self.path.stat().st_size - _TAIL_BYTES))
                text = file.read().decode(errors="replace")
                return text.removeprefix("".join(f"{line}\n" for line in after))
        except FileNotFoundError:
            return ""

    def keep_small(self) -> None:
        """Empty a file of over 32 MiB in place (the engine holds it open), its end kept in `NAME.1`."""
        if not self.path.exists() or self.path.stat().st_size <= _MOST_BYTES:
            return
        with contextlib.suppress(OSError):  # on a full disk emptying it is worth more than keeping its end
            self._kept.touch(mode=0o600)
            self._kept.write_text(self.tail())
        os.truncate(self.path, 0)

    @property
    def _kept(self) -> Path:
        return self.path.with_name(f"{self.path.name}.1")
