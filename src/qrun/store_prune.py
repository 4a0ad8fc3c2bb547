"""What qrun itself left in the Hub's cache and nobody needs any more. What others put there is never touched.

Three things: parts of downloads that were given up, wrong bytes that were set aside, and commits that qrun fetched
(the ledger says so) whose files a branch's newer snapshot has as well.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from qrun.store_ledger import Entry
from qrun.store_remove import is_being_fetched, plan_removal, remove
from qrun.store_scan import Snapshot, StoredRepo, files_of, leftovers

__all__ = ["LEFT_FOR_S", "Prunable", "prunable"]

LEFT_FOR_S = 24 * 3600  # a download that nobody has gone on with for a day is given up

Kind = Literal["partial", "set_aside", "superseded"]


@dataclass(frozen=True, slots=True)
class Prunable:
    """What may go: a file beside a repo's blobs, or the snapshots `commits`. `delete` does it."""

    repo_id: str
    kind: Kind
    paths: tuple[Path, ...]
    size_bytes: int
    commits: tuple[str, ...]
    delete: Callable[[], None]


def prunable(
    cache_dir: Path,
    repos: Sequence[StoredRepo],
    ledger: Sequence[Entry],
    pinned: Collection[tuple[str | None, str]],
    *,
    now_s: float,
) -> tuple[Prunable, ...]:
    """All that may go. `pinned`: commit and first file of each decision; `now_s`: seconds since the epoch."""
    unfinished = [one for repo in repos for one in _unfinished(cache_dir, repo, now_s)]
    superseded = [one for repo in repos for one in _superseded(cache_dir, repo, ledger, pinned)]
    return (*unfinished, *superseded)


def _unfinished(cache_dir: Path, repo: StoredRepo, now_s: float) -> Iterator[Prunable]:
    for left in leftovers(repo):
        if left.is_ours and now_s - left.modified_at_s >= LEFT_FOR_S and not is_being_fetched(cache_dir, repo, left):
            kind: Kind = "set_aside" if left.kind == "set_aside" else "partial"
            delete = partial(left.path.unlink, missing_ok=True)
            yield Prunable(repo.repo_id, kind, (left.path,), left.size_bytes, (), delete)


def _superseded(
    cache_dir: Path, repo: StoredRepo, ledger: Sequence[Entry], pinned: Collection[tuple[str | None, str]]
) -> Iterator[Prunable]:
    going = [one.commit for one in repo.snapshots if _is_superseded(one, repo, ledger, pinned)]
    for removal in plan_removal(cache_dir, [repo], commits=going) if going else ():
        delete = partial(remove, cache_dir, removal)
        yield Prunable(repo.repo_id, "superseded", removal.places, removal.size_bytes, removal.commits, delete)


def _is_superseded(
    snapshot: Snapshot, repo: StoredRepo, ledger: Sequence[Entry], pinned: Collection[tuple[str | None, str]]
) -> bool:
    """Whether all of it is ours, no branch and no decision names it, and a branch's snapshot has each of its files.

    A decision for another file of that commit, which is not stored, does not hold it.
    """
    if snapshot.refs:
        return False
    ours = {
        path
        for entry in ledger
        if (entry.repo_id, entry.commit, entry.tool) == (repo.repo_id, snapshot.commit, None)
        for path in entry.paths
    }
    paths = {file.path for file in files_of(snapshot)}
    if not paths or not paths <= ours or any((snapshot.commit, path) in pinned for path in paths):
        return False
    newer = [one for one in repo.snapshots if one.refs]
    return any(paths <= {file.path for file in files_of(one) if file.size_bytes is not None} for one in newer)
