"""The record of what qrun itself has put into the Hub's cache, and of other tools' files that it uses in place.

The cache is shared, and only what stands here may be pruned unasked. One file an entry, named by what it tells, so that
processes that write at once need no lock; a file that cannot be read is as if it were not there.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from qrun.whole_file import write_json

__all__ = ["Entry", "Ledger"]


@dataclass(frozen=True, slots=True)
class Entry:
    """Files of one commit that qrun stored, or found at another tool. `at_s`: when, in seconds since the epoch.

    `paths` are relative to the repo. Of what another tool holds, `tool` names it and `held_at` has the files' own
    places, in the same order.
    """

    repo_id: str
    commit: str
    ref: str
    paths: tuple[str, ...]
    at_s: float
    tool: str | None = None
    held_at: tuple[str, ...] = ()


class Ledger:
    """The record in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, entry: Entry) -> None:
        """Keep `entry`, in place of one of the same files. Raises OSError where the folder cannot be written."""
        write_json(self._path(entry), asdict(entry))

    def entries(self) -> tuple[Entry, ...]:
        """Every entry, the oldest first."""
        read = (_read(path) for path in self._folder.glob("*.json"))
        return tuple(sorted(filter(None, read), key=lambda entry: (entry.at_s, entry.repo_id, entry.paths)))

    def forget(self, repo_id: str, commit: str | None = None) -> None:
        """Drop the entries of a repo, or of one commit of it."""
        for path in self._folder.glob("*.json"):
            entry = _read(path)
            if entry is not None and entry.repo_id == repo_id and commit in (None, entry.commit):
                path.unlink(missing_ok=True)  # another qrun may have been quicker

    def _path(self, entry: Entry) -> Path:
        told = json.dumps([entry.repo_id, entry.commit, sorted(entry.paths), entry.tool])
        return self._folder / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.json"


def _read(path: Path) -> Entry | None:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return Entry(
            repo_id=str(told["repo_id"]),
            commit=str(told["commit"]),
            ref=str(told["ref"]),
            paths=_texts(told["paths"]),
            at_s=float(told["at_s"]),
            tool=None if told["tool"] is None else str(told["tool"]),
            held_at=_texts(told["held_at"]),
        )
    except (OSError, KeyError, TypeError, ValueError):  # gone in between, or not ours to read
        return None


def _texts(told: object) -> tuple[str, ...]:
    if not isinstance(told, list):
        raise TypeError("a list of paths was expected")
    return tuple(map(str, told))
