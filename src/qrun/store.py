"""The store: what a decision names, whole and verified on this disk, in the cache that huggingface_hub uses too.

Everything is fetched by commit, never by branch: what the Hub changes meanwhile cannot mix in. A file is linked into
its commit's folder only after its blob was verified, and the branch's ref is written last, after all files are there.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from qrun.errors import FileDamaged
from qrun.hub_client import HubClient
from qrun.hub_errors import HubUnreachable
from qrun.hub_info import HubFile
from qrun.hub_settings import HubSettings
from qrun.model import ModelFile
from qrun.source import Advance, Report, quiet
from qrun.store_blob import fetch_blob, holding, is_whole_blob
from qrun.store_disk import check_room, disk_refusals
from qrun.store_download import Remote, Transfers, TransfersEnded
from qrun.store_journal import journalled
from qrun.store_layout import RepoLayout, blob_key, check_paths
from qrun.store_snapshot import check_folders, is_in_place, make_folders, put_link, write_ref
from qrun.store_xet import fetch_by_xet

__all__ = ["Store", "Wanted"]

_N_FILES = 4  # at once: a small one costs a round trip, not its bytes
_LEAVE_S = 5.0  # for threads to write down what came, after the work was given up


@dataclass(frozen=True, slots=True)
class Wanted:
    """The files of one decision: of `repo_id` at `commit`, which is what `ref` (a branch or tag) was then."""

    repo_id: str
    commit: str
    ref: str
    files: tuple[HubFile | ModelFile, ...]


class Store:
    """The Hub's cache folder. `client` None: what is not stored cannot be had."""

    def __init__(self, settings: HubSettings, client: HubClient | None) -> None:
        self._settings = settings
        self._client = client

    def path_of(self, wanted: Wanted) -> Path | None:
        """The first file's path in its commit's folder, if every file lies there whole; by links and sizes, unread.

        Whoever put them there. Raises UnsafeFile for names that are not taken from any Hub.
        """
        layout = self._checked(wanted)
        if not all(is_in_place(layout, wanted.commit, file) for file in wanted.files):
            return None
        return layout.file(wanted.commit, wanted.files[0].path)

    def fetch(self, wanted: Wanted, report: Report = quiet, *, is_latest: bool = True) -> Path:
        """`path_of` after what is missing was fetched and verified. `report` is called from several threads.

        `is_latest`: the commit is the one that the ref was just seen at. An older one, which a kept decision names,
        does not turn a ref back that another tool has brought further.

        Where it is interrupted or fails, what came stays and the next call goes on from there; only wrong bytes are
        set aside. Raises HubUnreachable, AccessDenied, DiskFull, ChecksumWrong, FileDamaged (a size that differs),
        UnsafeFile, and Failure where the disk cannot be used.
        """
        layout = self._checked(wanted)
        if path := self.path_of(wanted):
            with suppress(OSError):  # a cache that may only be read serves all the same
                _note_ref(layout, wanted, replace=False)
            return path
        client = self._client
        if client is None:
            why = f"{wanted.repo_id} is not stored whole, and the Hub may not be asked"
            raise HubUnreachable(self._settings.endpoint, why, "Run it once without --offline.")
        groups = _by_checksum(_with_checksums(client, wanted))
        with disk_refusals(self._settings.cache_dir):
            self._fetch_missing(client, layout, wanted, groups, report)
            _note_ref(layout, wanted, replace=is_latest)
        return layout.file(wanted.commit, wanted.files[0].path)

    def _checked(self, wanted: Wanted) -> RepoLayout:
        layout = RepoLayout(self._settings.cache_dir, wanted.repo_id)
        layout.snapshot(wanted.commit)
        layout.ref(wanted.ref)
        check_paths((file.path for file in wanted.files), f"{wanted.repo_id}/")
        return layout

    def _fetch_missing(
        self,
        client: HubClient,
        layout: RepoLayout,
        wanted: Wanted,
        groups: Mapping[str, Sequence[ModelFile]],
        report: Report,
    ) -> None:
        check_folders(layout, layout.ref(wanted.ref))
        for file in wanted.files:
            check_folders(layout, layout.file(wanted.commit, file.path))
        check_room(self._settings.cache_dir, sum(_missing_bytes(layout, groups)))
        make_folders(layout, wanted.commit)
        if self._settings.xet:
            fetch_by_xet(self._settings, layout, wanted.commit, groups, report)
            return
        transfers = Transfers(client)
        errand = _Errand(layout, wanted, transfers, report)
        _work_through([partial(errand.have, key, files) for key, files in groups.items()], transfers)


@dataclass(frozen=True, slots=True)
class _Errand:
    """One call of `fetch`: what it is about, for the threads that work on it."""

    layout: RepoLayout
    wanted: Wanted
    transfers: Transfers
    report: Report

    def have(self, key: str, files: Sequence[ModelFile]) -> None:
        """Have one blob, and all files that are those bytes in their places."""
        missing = []
        for file in files:
            if is_in_place(self.layout, self.wanted.commit, file):
                self._tell_whole(file)
            else:
                missing.append(file)
        if missing:
            self._have_missing(key, missing)

    def _have_missing(self, key: str, files: Sequence[ModelFile]) -> None:
        wanted, first = self.wanted, files[0]
        remote = Remote(wanted.repo_id, wanted.commit, first.path, key, first.size_bytes)

        def put(is_new: bool) -> None:  # noqa: FBT001  # it is called with nothing else
            for file in files:
                path = self.layout.file(wanted.commit, file.path)
                put_link(self.layout, key, path, may_move=is_new and len(files) == 1)

        fetch_blob(self.layout, remote, self.transfers, self.report, put=put)
        for file in files[1:]:
            self._tell_whole(file)

    def _tell_whole(self, file: ModelFile) -> None:
        self.report(Advance(self.wanted.repo_id, file.path, file.size_bytes, file.size_bytes))


def _note_ref(layout: RepoLayout, wanted: Wanted, *, replace: bool) -> None:
    alone = holding(layout.lock(wanted.commit), lambda: None)
    write_ref(layout, wanted.ref, wanted.commit, replace=replace, alone=alone)


def _work_through(tasks: Iterable[Callable[[], None]], transfers: Transfers) -> None:
    """Do `tasks`, a few at once, while this thread waits for them: it is the one that Ctrl-C reaches.

    Raises the first failure of any of them.
    """
    left = deque(tasks)
    n_workers = min(_N_FILES, len(left))
    workers = [
        threading.Thread(target=_work, args=(left, transfers), name="store-worker", daemon=True)
        for _ in range(n_workers)
    ]
    try:
        transfers.start()
        for worker in workers:
            worker.start()
        for worker in workers:
            while worker.is_alive():
                worker.join(0.5)  # Windows interrupts no wait without an end
    finally:
        transfers.end()
        for worker in filter(threading.Thread.is_alive, workers):
            worker.join(_LEAVE_S)
    if transfers.failure is not None:
        raise transfers.failure


def _work(left: deque[Callable[[], None]], transfers: Transfers) -> None:
    try:
        while left:
            transfers.check()
            left.popleft()()
    except (TransfersEnded, IndexError):  # given up, or another thread took the last
        return
    except BaseException as error:  # noqa: BLE001  # raised again in the thread that waits
        transfers.fail(error)


def _with_checksums(client: HubClient, wanted: Wanted) -> tuple[ModelFile, ...]:
    """The wanted files, each with the checksum that the Hub names for it."""
    if all(blob_key(file) for file in wanted.files):
        return wanted.files
    info = client.repo(wanted.repo_id, wanted.commit)
    listed = {file.path: file for file in info.files} if info else {}
    for file in wanted.files:
        if file.path not in listed:
            why = f"commit {wanted.commit} of {wanted.repo_id} has no such file"
            raise FileDamaged(file.path, why, "Decide anew with --refresh.")
    return tuple(listed[file.path] for file in wanted.files)


def _by_checksum(files: Iterable[ModelFile]) -> dict[str, list[ModelFile]]:
    """The files by the blob they share; most have one of their own."""
    groups: dict[str, list[ModelFile]] = {}
    for file in files:
        groups.setdefault(blob_key(file) or "", []).append(file)
    return groups


def _missing_bytes(layout: RepoLayout, groups: Mapping[str, Sequence[ModelFile]]) -> Iterator[int]:
    """What each blob still needs on the disk."""
    for key, files in groups.items():
        size_bytes = files[0].size_bytes
        if not is_whole_blob(layout, key, size_bytes):
            yield size_bytes - journalled(layout.journal(key), key=key, size_bytes=size_bytes).n_bytes
