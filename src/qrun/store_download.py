"""Parallel ranged reads from the Hub into files that are on their way.

The rule that bounds what a kill can cost: a range is asked for only while all that was asked for and does not yet
stand in a journal is within one budget, over all ranges and files. So whatever was on its way, in the network, in the
kernel's buffers or on the way to the disk, a second run fetches at most that much again.
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from qrun.errors import FileDamaged
from qrun.hub_errors import RangesIgnored
from qrun.store_partial import Partial, PartialClosed
from qrun.units import MIB

__all__ = ["UNSETTLED_BYTES", "RangedReader", "Remote", "Transfers", "TransfersEnded"]

UNSETTLED_BYTES = 16 * MIB
_SLICE_BYTES = 4 * MIB
_N_READERS = 4  # connections at once: the budget in slices, so that none waits while all go well
_MOST_STARTS = 5  # of a file whose server sends it from byte 0 alone


class RangedReader(Protocol):
    """What is needed of the Hub's client."""

    def ranged(
        self, repo_id: str, commit: str, path: str, start: int, stop: int
    ) -> AbstractContextManager[Iterator[bytes]]:
        """The bytes [start, stop) of a file as they come; fewer where it ends before."""
        ...


class TransfersEnded(Exception):
    """The work was given up while a thread was busy with its part of it."""


@dataclass(frozen=True, slots=True)
class Remote:
    """One file of one commit on the Hub; `key` is the checksum that its blob is named by."""

    repo_id: str
    commit: str
    path: str
    key: str
    size_bytes: int

    def __str__(self) -> str:
        return f"{self.repo_id}/{self.path}"


class Transfers:
    """The readers, from `with` until its end. The first failure of any of them, or of who uses them, ends all."""

    def __init__(self, client: RangedReader) -> None:
        self.failure: BaseException | None = None
        self._client = client
        self._changed = threading.Condition()
        self._work: list[tuple[Remote, Partial]] = []
        self._ended = False
        # Daemons: one that hangs in the network must not keep the process from ending.
        self._readers = [
            threading.Thread(target=self._read_on, name=f"store-reader-{n}", daemon=True) for n in range(_N_READERS)
        ]

    def start(self) -> None:
        """Let the readers begin."""
        for reader in self._readers:
            reader.start()

    def end(self) -> None:
        """Give up what is not done yet. Readers in the network leave it with their next piece."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """End all because of `error`; the first one counts."""
        with self._changed:
            if not self._ended:
                self.failure = error
        self.end()

    def check(self) -> None:
        """Raise TransfersEnded where the work was given up."""
        if self._ended:
            raise TransfersEnded

    def add(self, remote: Remote, partial: Partial) -> None:
        """Have what is missing of `partial` read, after what was added before."""
        with self._changed:
            self._work.append((remote, partial))
            self._changed.notify_all()

    def remove(self, partial: Partial) -> None:
        """Forget a file that is done or given up."""
        with self._changed:
            self._work = [work for work in self._work if work[1] is not partial]

    def settled(self) -> None:
        """Something that was asked for stands in a journal now: more may be asked for."""
        with self._changed:
            self._changed.notify_all()

    def _read_on(self) -> None:
        try:
            while (claim := self._next_claim()) is not None:
                self._read(*claim)
        except (PartialClosed, TransfersEnded):
            return
        except BaseException as error:  # noqa: BLE001  # handed to who waits for the files, whatever it is
            self.fail(error)

    def _next_claim(self) -> tuple[Remote, Partial, int, int] | None:
        with self._changed:
            while not self._ended:
                left_bytes = UNSETTLED_BYTES - sum(partial.unsettled_bytes for _, partial in self._work)
                for remote, partial in self._work:
                    if claim := partial.claim(_SLICE_BYTES, left_bytes):
                        return remote, partial, *claim
                self._changed.wait()
        return None

    def _read(self, remote: Remote, partial: Partial, start: int, stop: int) -> None:
        at = start
        try:
            with self._client.ranged(remote.repo_id, remote.commit, remote.path, start, stop) as pieces:
                for piece in pieces:
                    partial.write(at, piece)
                    at += len(piece)
                    self.check()
            partial.settle_soon()
        except RangesIgnored:
            if partial.claim_whole():
                self._read_whole(remote, partial)
        else:
            self._check_end(remote, partial, at, stop)

    def _read_whole(self, remote: Remote, partial: Partial) -> None:
        """Read the file from byte 0, outside of the budget: a server without ranges begins anew after every break."""
        furthest = 0
        for n_left in reversed(range(_MOST_STARTS)):
            at = 0
            try:
                with self._client.ranged(remote.repo_id, remote.commit, remote.path, 0, remote.size_bytes) as pieces:
                    for piece in pieces:
                        partial.write(at, piece)
                        at += len(piece)
                        self.check()
            except RangesIgnored:
                if not n_left or at <= furthest:
                    raise
                furthest = at
            else:
                break
        partial.settle_soon()
        self._check_end(remote, partial, at, remote.size_bytes)

    @staticmethod
    def _check_end(remote: Remote, partial: Partial, at: int, stop: int) -> None:
        if at < stop:
            partial.is_wrong = True
            raise FileDamaged(str(remote), f"it ends by byte {at}, and the Hub's listing says {remote.size_bytes}")
