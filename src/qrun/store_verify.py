"""Stored files held against their checksums: sha256, or git's id for what is not in LFS.

A blob bears its checksum as its name. Wrong bytes are set aside at once and the links to them are removed, so that no
tool serves them and a fetch brings the file again.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qrun.errors import Failure, FileDamaged, QrunError
from qrun.hub_errors import ChecksumWrong
from qrun.source import Advance, Report
from qrun.store_layout import RepoLayout
from qrun.store_scan import StoredFile, StoredRepo, files_of

__all__ = ["Checked", "checked_error", "files_to_check", "verify"]

_READ_BYTES = 4 * 2**20
_SHA256_DIGITS = 64

Outcome = Literal["whole", "wrong", "missing", "unreadable", "unknown"]


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of one file. `unknown`: no checksum is known (a copy, where links cannot be made).

    `expected` and `found` are sha256 or git ids; `found` is None where nothing could be read.
    """

    repo_id: str
    commit: str
    path: str
    disk: Path
    size_bytes: int | None
    outcome: Outcome
    expected: str | None = None
    found: str | None = None


def files_to_check(repo: StoredRepo) -> tuple[tuple[str, StoredFile], ...]:
    """The files of a repo's snapshots with their commits; bytes that several snapshots share, once."""
    seen: dict[Path, tuple[str, StoredFile]] = {}
    for snapshot in repo.snapshots:
        for file in files_of(snapshot):
            seen.setdefault(file.blob if file.size_bytes is not None else file.disk, (snapshot.commit, file))
    return tuple(seen.values())


def verify(cache_dir: Path, repo: StoredRepo, report: Report) -> Iterator[Checked]:
    """Read every file of `repo` and say what came of it. Wrong bytes are set aside before the next file is read."""
    for commit, file in files_to_check(repo):
        outcome, found = _outcome(repo, file, report)
        if outcome == "wrong":
            _set_aside(cache_dir, repo, file)
        yield Checked(repo.repo_id, commit, file.path, file.disk, file.size_bytes, outcome, file.key, found)


def checked_error(checked: Checked) -> QrunError | None:
    """The refusal that a file's outcome is; None for one that is whole or of unknown checksum."""
    again = f"Fetch it again: qrun pull {checked.repo_id}"
    path = str(checked.disk)
    if checked.outcome == "wrong":
        return ChecksumWrong(
            path, "; it was set aside", f"{again}.", expected=checked.expected or "", found=checked.found or ""
        )
    if checked.outcome == "missing":
        return FileDamaged(path, "its bytes are gone", f"{again}.")
    if checked.outcome == "unreadable":
        return Failure(f"{path} cannot be read.", "Check its permissions and the disk.")
    return None


def _outcome(repo: StoredRepo, file: StoredFile, report: Report) -> tuple[Outcome, str | None]:
    if file.size_bytes is None:
        return "missing", None
    if file.key is None:
        return "unknown", None
    size_bytes = file.size_bytes
    try:
        found = _checksum(file, size_bytes, lambda done: report(Advance(repo.repo_id, file.path, done, size_bytes)))
    except FileNotFoundError:
        return "missing", None
    except OSError:
        return "unreadable", None
    return ("whole" if found == file.key else "wrong"), found


def _checksum(file: StoredFile, size_bytes: int, report: Callable[[int], None]) -> str:
    if file.key is not None and len(file.key) == _SHA256_DIGITS:
        checksum = hashlib.sha256()
    else:
        checksum = hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)  # git's id of a file
    done = 0
    buffer = memoryview(bytearray(_READ_BYTES))
    with file.disk.open("rb", buffering=0) as opened:
        while n := opened.readinto(buffer):
            checksum.update(buffer[:n])
            done += n
            report(done)
    return checksum.hexdigest()


def _set_aside(cache_dir: Path, repo: StoredRepo, file: StoredFile) -> None:
    """First the links go, then the bytes: at no moment does a snapshot name what is not there."""
    for link in _links_to(file.blob, repo):
        link.unlink(missing_ok=True)
    if file.blob.is_symlink():  # the bytes are in the store that all repos share: others may still refer to them
        file.blob.unlink()
        return
    aside = RepoLayout(cache_dir, repo.repo_id).set_aside(file.key or "")
    file.blob.replace(aside)


def _links_to(blob: Path, repo: StoredRepo) -> Sequence[Path]:
    files = (file for snapshot in repo.snapshots for file in files_of(snapshot))
    return [file.disk for file in files if file.blob == blob]
