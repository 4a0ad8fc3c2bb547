"""Models that lie in the Hub's cache, whoever fetched them: a source without network and without huggingface_hub.

Of each repo the snapshot of every branch counts (`main` first; EXL2 has one per width), and of older snapshots what
no branch's snapshot has: a branch that another tool has moved on does not hide weights that are whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qrun.errors import Failure, ModelNotFound, NotAModel
from qrun.hub_settings import HubSettings
from qrun.local_files import LocalFile, files_under
from qrun.local_repos import LocalRepo, choose_repos, local_repo, with_file
from qrun.model import Candidate
from qrun.model_folder import candidates_of, refuse_if_all_damaged, whole_file
from qrun.names import ModelRef
from qrun.packed_name import likeliest_id
from qrun.source import FoundModel, Report, quiet
from qrun.store_layout import RepoLayout
from qrun.store_scan import Snapshot, StoredRepo, stored_repos

__all__ = ["StoredSource"]

_LEAST_PREFIX = 4  # hexadecimal digits that count as the start of a commit; git takes no fewer either


@dataclass(frozen=True, slots=True)
class _Named:
    """A stored repo, and what its name and card say that it is."""

    stored: StoredRepo
    repo: LocalRepo


class StoredSource:
    """What the Hub's cache holds."""

    def __init__(self, settings: HubSettings) -> None:
        self._cache_dir = settings.cache_dir

    @property
    def description(self) -> str:
        """The cache's folder."""
        return f"what is stored in {self._cache_dir}"

    def find(self, model: ModelRef) -> FoundModel:
        """Every stored quant of the model that `model` names; with a revision (a branch, a commit or its start) that.

        An exact repo id or repo name is that repo alone. Raises ModelNotFound with the nearest names that are stored,
        AmbiguousModel, NotAModel for repos without weights, FileDamaged (or UnsafeFile) where no file of the model can
        be taken, Failure for a folder without permission.
        """
        try:
            return self._find(model)
        except OSError as error:
            what = f"{error.filename or self._cache_dir} cannot be read: {error.strerror or error}."
            raise Failure(what, "Check the folder and its permissions, or HF_HUB_CACHE.") from error

    def sharpened(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """The same: the headers of files on this disk are read when they are found."""
        return tuple(candidates)

    def local_path(self, candidate: Candidate, report: Report = quiet) -> Path:  # noqa: ARG002  # nothing to fetch
        """The candidate's first file, all its files being there. Raises FileDamaged where they changed."""
        return whole_file(self._folder_of(candidate), candidate)

    def close(self) -> None:
        """Nothing is held open."""

    def _find(self, model: ModelRef) -> FoundModel:
        named = self._named(model)
        chosen, warnings = choose_repos(model, [one.repo for one in named], self.description)
        at_hand = [one for one in named if one.repo in chosen]
        if model.revision is not None:
            at_hand = self._at_revision(model, at_hand)
        candidates = tuple(candidate for one in at_hand for candidate in _candidates(one))
        candidates = with_file(model, candidates, self.description)
        if not candidates:
            looked_for = "no GGUF file, and no config.json with safetensors"
            raise NotAModel(str(at_hand[0].stored.folder), f"of what is stored there, nothing is one: {looked_for}.")
        refuse_if_all_damaged(candidates, self._folder_of)
        return FoundModel(likeliest_id([candidate.base_model for candidate in candidates]), candidates, warnings)

    def _named(self, model: ModelRef) -> list[_Named]:
        stored = [repo for repo in stored_repos(self._cache_dir) if repo.snapshots]
        if not stored:
            hint = "Fetch it with qrun pull while the Hub can be reached."
            raise ModelNotFound(model.text, f"{self._cache_dir}, where nothing is stored", hint=hint)
        return [_Named(repo, local_repo(repo.repo_id, repo.card_folder)) for repo in stored]

    def _at_revision(self, model: ModelRef, named: Sequence[_Named]) -> list[_Named]:
        """The repos with the snapshots of that revision alone."""
        matching = [(one, _matching(one.stored.snapshots, model.revision or "")) for one in named]
        found = [replace(one, stored=replace(one.stored, snapshots=at)) for one, at in matching if at]
        if not found:
            there = [name for one in named for at in one.stored.snapshots for name in at.refs or (at.commit[:12],)]
            hint = f"Stored are the revisions {', '.join(dict.fromkeys(there))}."
            raise ModelNotFound(f"{model.name}@{model.revision}", self.description, hint=hint)
        return found

    def _folder_of(self, candidate: Candidate) -> Path:
        return RepoLayout(self._cache_dir, candidate.repo_id or "").snapshots / (candidate.revision or "")


def _matching(snapshots: Sequence[Snapshot], revision: str) -> tuple[Snapshot, ...]:
    if of_ref := tuple(snapshot for snapshot in snapshots if revision in snapshot.refs):
        return of_ref
    if len(revision) < _LEAST_PREFIX:
        return ()
    return tuple(snapshot for snapshot in snapshots if snapshot.commit.startswith(revision.lower()))


def _candidates(named: _Named) -> Iterator[Candidate]:
    """The candidates of a repo's snapshots; of one that no branch names, those that were not there before."""
    whole: set[tuple[str, ...]] = set()
    for snapshot in named.stored.snapshots:
        for candidate in _in_snapshot(named.repo, snapshot):
            paths = tuple(file.path for file in candidate.files)
            if snapshot.refs or paths not in whole:
                yield candidate
            if candidate.stored:
                whole.add(paths)


def _in_snapshot(repo: LocalRepo, snapshot: Snapshot) -> Iterator[Candidate]:
    files: tuple[LocalFile, ...] = files_under(snapshot.folder)
    publisher = repo.repo_id.rpartition("/")[0] or None
    for one in candidates_of(files, repo_id=repo.repo_id, publisher=publisher, base_model=repo.bases[0]):
        is_whole = one.defect is None or one.defect.reason != "incomplete"
        ref = snapshot.refs[0] if snapshot.refs else None
        yield replace(one, revision=snapshot.commit, ref="main" if "main" in snapshot.refs else ref, stored=is_whole)
