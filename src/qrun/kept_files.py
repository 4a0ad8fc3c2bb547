"""A candidate's files on this disk: from the Hub's cache, else as another tool holds them, else fetched.

The one order that all who need a model's bytes go by. What qrun fetches, and what of other tools it uses in place, is
put on record for `qrun list` and `qrun prune`.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from qrun.foreign_files import ForeignFiles, Places, find_foreign
from qrun.model import Candidate
from qrun.source import Report, quiet
from qrun.store import Store, Wanted
from qrun.store_ledger import Entry, Ledger

__all__ = ["KeptFiles"]


class KeptFiles:
    """The store, other tools' places and the record, as one. Candidates are those of a repo at a commit."""

    def __init__(self, store: Store, places: Places, ledger: Ledger, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._places = places
        self._ledger = ledger
        self._clock = clock

    def path_of(self, candidate: Candidate) -> Path | None:
        """The first file, if all lie whole on this disk; no network. Raises UnsafeFile for a name never taken."""
        if path := self._store.path_of(_wanted(candidate)):
            return path
        found = find_foreign(candidate, self._places)
        return found.paths[0] if found else None

    def path(self, candidate: Candidate, report: Report = quiet, *, is_latest: bool = True) -> Path:
        """The first file, after what is on this disk nowhere was fetched. Raises what `Store.fetch` raises.

        `is_latest`: the candidate was found on the Hub just now, not kept from an earlier day.
        """
        wanted = _wanted(candidate)
        missing = tuple(file for file in wanted.files if self._store.path_of(replace(wanted, files=(file,))) is None)
        if missing and (found := find_foreign(candidate, self._places)):
            self._record(wanted, found)
            return found.paths[0]
        path = self._store.fetch(wanted, report, is_latest=is_latest)
        if missing:
            self._record(replace(wanted, files=missing), None)
        return path

    def _record(self, wanted: Wanted, found: ForeignFiles | None) -> None:
        paths = tuple(file.path for file in wanted.files)
        entry = Entry(wanted.repo_id, wanted.commit, wanted.ref, paths, self._clock())
        if found is not None:
            entry = replace(entry, tool=found.tool, held_at=tuple(map(str, found.paths)))
        # A record that cannot be written costs no model: prune then leaves its files alone, as it does others'.
        with suppress(OSError):
            self._ledger.add(entry)


def _wanted(candidate: Candidate) -> Wanted:
    return Wanted(candidate.repo_id or "", candidate.revision or "", candidate.ref or "main", candidate.files)
