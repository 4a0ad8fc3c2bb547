"""One blob: fetched once, under the lock that huggingface_hub holds too, verified, and put in its place."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from qrun.hub_errors import ChecksumWrong
from qrun.source import Advance, Report
from qrun.store_download import Remote, Transfers
from qrun.store_journal import journalled
from qrun.store_layout import RepoLayout
from qrun.store_partial import Partial

__all__ = ["Progress", "fetch_blob", "holding", "is_whole_blob"]

_REPORT_S = 0.1
_LOCK_S = 0.25  # how often one who waits for another process looks how far that is


class Progress:
    """Tells a `Report` of one file, about ten times a second at most. Of one thread."""

    def __init__(self, report: Report, remote: Remote) -> None:
        self._report, self._remote = report, remote
        self._told_at = float("-inf")

    def tell(self, done_bytes: int) -> None:
        """So many bytes are there; passed on where the last word is old enough."""
        now = time.monotonic()
        if now - self._told_at >= _REPORT_S:
            self._told_at = now
            self._report(Advance(self._remote.repo_id, self._remote.path, done_bytes, self._remote.size_bytes))

    def done(self) -> None:
        """All is there and verified; always passed on."""
        total_bytes = self._remote.size_bytes
        self._report(Advance(self._remote.repo_id, self._remote.path, total_bytes, total_bytes))


def is_whole_blob(layout: RepoLayout, key: str, size_bytes: int) -> bool:
    """Whether the blob lies there with its full size. What is under a blob's name was verified by who put it there."""
    try:
        return layout.blob(key).stat().st_size == size_bytes
    except OSError:
        return False  # none, or a link into a shared store that leads nowhere


def fetch_blob(
    layout: RepoLayout, remote: Remote, transfers: Transfers, report: Report, *, put: Callable[[bool], None]
) -> None:
    """Have the blob whole and verified in its place, and let `put` lead the files to it: nobody else does meanwhile.

    `put` is told whether the blob is new, or somebody else had fetched it. Raises ChecksumWrong (the wrong bytes are
    set aside), TransfersEnded, OSError.
    """
    progress = Progress(report, remote)
    journal = layout.journal(remote.key)

    def look() -> None:
        transfers.check()
        progress.tell(journalled(journal, key=remote.key, size_bytes=remote.size_bytes).n_bytes)

    with holding(layout.lock(remote.key), look):
        is_new = not is_whole_blob(layout, remote.key, remote.size_bytes)
        if is_new:
            _download(layout, remote, transfers, progress)
        journal.unlink(missing_ok=True)  # of a run that was killed between its last two steps
        put(is_new)
    progress.done()


@contextmanager
def holding(lock: Path, look: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a blob. While another process has it `look` is called, and may raise.

    It is the lock of the operating system: that of a process that was killed is free.
    """
    from filelock import Timeout
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # theirs, so that both wait alike

    lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(WeakFileLock(lock, timeout=_LOCK_S))
                break
            except Timeout:
                look()
        yield


def _download(layout: RepoLayout, remote: Remote, transfers: Transfers, progress: Progress) -> None:
    partial = Partial(layout, remote.key, remote.size_bytes)
    try:
        transfers.add(remote, partial)
        _see_through(partial, transfers, progress)
        if partial.checksum != remote.key:
            partial.is_wrong = True
            where = f" (set aside as {layout.set_aside(remote.key)})"
            raise ChecksumWrong(str(remote), where, expected=remote.key, found=partial.checksum)
        partial.put_in_place()
    finally:
        transfers.remove(partial)
        if partial.is_wrong:
            partial.set_aside()
        partial.close()


def _see_through(partial: Partial, transfers: Transfers, progress: Progress) -> None:
    """Settle and hash what the readers bring until all is there; leave what can be resumed where they end."""
    try:
        while not partial.is_complete:
            transfers.check()
            settled = partial.settle()
            if settled:
                transfers.settled()
            if not partial.hash_on() and not settled:
                partial.wait(_REPORT_S)
            progress.tell(partial.done_bytes)
    except BaseException:
        partial.settle_soon()
        with suppress(OSError):  # what cannot be written down now is fetched again, no more
            partial.settle()
        raise
