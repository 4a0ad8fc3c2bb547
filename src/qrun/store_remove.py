"""What is deleted from the Hub's cache, through huggingface_hub's own strategy: bytes that others share stay.

First planned, then done, so that what would go can be shown and agreed to. A repo that the strategy does not take
(a link that leads nowhere, nothing finished yet) is deleted as the folder it is.
"""

import logging
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from qrun.errors import Failure
from qrun.store_layout import RepoLayout, is_key
from qrun.store_scan import Leftover, StoredRepo, leftovers

__all__ = ["Removal", "is_being_fetched", "plan_removal", "remove"]


@dataclass(frozen=True, slots=True)
class Removal:
    """What would be deleted of a repo: the snapshots `commits`, or all where `whole`. `size_bytes`: what that frees."""

    repo: StoredRepo
    commits: tuple[str, ...]
    whole: bool
    size_bytes: int
    delete: Callable[[], None]

    @property
    def places(self) -> tuple[Path, ...]:
        """The folders that are not there afterwards."""
        if self.whole:
            return (self.repo.folder,)
        return tuple(one.folder for one in self.repo.snapshots if one.commit in self.commits)


def plan_removal(
    cache_dir: Path, repos: Sequence[StoredRepo], *, commits: Collection[str] | None = None
) -> tuple[Removal, ...]:
    """How each of `repos` would be deleted: whole with all that is unfinished in it, or only its `commits`.

    Reads the cache once, by huggingface_hub's scan. A snapshot that the scan does not take stays, unless all go.
    """
    if not repos:
        return ()
    from huggingface_hub import scan_cache_dir

    with _silent():
        info = scan_cache_dir(cache_dir)
    scanned = {Path(one.repo_path).name: one for one in info.repos}
    found: list[Removal] = []
    for repo in repos:
        going = tuple(one.commit for one in repo.snapshots if commits is None or one.commit in commits)
        whole = len(going) == len(repo.snapshots)
        unfinished = sum(left.size_bytes for left in leftovers(repo)) if whole else 0
        if going and (cached := scanned.get(repo.folder.name)):
            # One repo at a time: repos copied on the Hub share commits, and the strategy takes the first that has one.
            with _silent():
                strategy = replace(info, repos=frozenset([cached])).delete_revisions(*going)
            found.append(Removal(repo, going, whole, strategy.expected_freed_size + unfinished, strategy.execute))
        elif whole:
            size_bytes = _blobs_bytes(repo.folder) + unfinished
            found.append(Removal(repo, going, whole, size_bytes, partial(shutil.rmtree, repo.folder)))
    return tuple(found)


def remove(cache_dir: Path, removal: Removal) -> None:
    """Delete what was planned. Raises Failure where the repo is being fetched just now, or permission is lacking."""
    if removal.whole and any(is_being_fetched(cache_dir, removal.repo, left) for left in leftovers(removal.repo)):
        raise Failure(f"{removal.repo.repo_id} is being fetched just now.", "Wait until that is done, or end it first.")
    with _silent(), suppress(PermissionError):  # looked at below, whoever deleted
        removal.delete()
    for path in removal.places:
        if path.exists():
            raise Failure(f"{path} could not be deleted.", "Change its permissions, or run qrun as its owner.")


def is_being_fetched(cache_dir: Path, repo: StoredRepo, left: Leftover) -> bool:
    """Whether somebody holds the lock of the blob that `left` is a part of: qrun and huggingface_hub take the same."""
    from filelock import FileLock, Timeout

    key = left.path.name.partition(".")[0]
    lock = RepoLayout(cache_dir, repo.repo_id).lock(key) if is_key(key) else None
    if lock is None or not lock.exists():
        return False
    try:
        with FileLock(lock, blocking=False):
            return False
    except Timeout:
        return True


def _blobs_bytes(folder: Path) -> int:
    """The bytes of a repo's whole blobs; what a blob links to is the store's that all repos share."""
    blobs = folder / "blobs"
    found = [path for path in blobs.iterdir() if is_key(path.name) and not path.is_symlink()] if blobs.is_dir() else []
    return sum(path.stat().st_size for path in found)


@contextmanager
def _silent() -> Iterator[None]:
    """huggingface_hub logs what it cannot delete, with a traceback; what matters of it is looked at afterwards."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
