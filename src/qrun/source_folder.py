"""Models in a folder of repos, `ORG/NAME/files`: the layout of the Hub on the user's own disk.

Names are told from the folders' names and the READMEs alone; headers are read only of the model that is asked for.
"""

from collections.abc import Sequence
from pathlib import Path

from qrun.errors import Failure, ModelNotFound, NotAModel
from qrun.local_files import files_under, subfolders
from qrun.local_repos import LocalRepo, choose_repos, local_repo, with_file
from qrun.model import Candidate
from qrun.model_folder import candidates_of, refuse_if_all_damaged, whole_file
from qrun.names import ModelRef
from qrun.packed_name import likeliest_id
from qrun.source import FoundModel, Report, quiet

__all__ = ["FolderSource"]

_LOCAL_REVISIONS = (None, "main")  # a folder has one state of each repo, the one that lies there


class FolderSource:
    """A folder of repos `ORG/NAME/files`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def description(self) -> str:
        """The folder."""
        return str(self._root)

    def find(self, model: ModelRef) -> FoundModel:
        """Every quant of the model that `model` names, from all repos of it.

        An exact repo id or repo name is that repo alone. Raises ModelNotFound with the nearest names that are here,
        AmbiguousModel, NotAModel for repos that hold no weights, FileDamaged (or UnsafeFile) where no file of the model
        can be taken, Failure for a folder without permission.
        """
        try:
            return self._find(model)
        except OSError as error:
            what = f"{error.filename or self._root} cannot be read: {error.strerror or error}."
            raise Failure(what, "Check the folder and its permissions.") from error

    def sharpened(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """The same: the headers of files on this disk are read when they are found."""
        return tuple(candidates)

    def local_path(self, candidate: Candidate, report: Report = quiet) -> Path:  # noqa: ARG002  # nothing to fetch
        """The candidate's first file, all its files being there. Raises FileDamaged where they changed."""
        return whole_file(self._root / (candidate.repo_id or ""), candidate)

    def close(self) -> None:
        """Nothing is held open."""

    def _find(self, model: ModelRef) -> FoundModel:
        chosen, warnings = choose_repos(model, self._repos(model), str(self._root))
        if model.revision not in _LOCAL_REVISIONS:
            where = f"{self._root}, where repos have no revisions (only what lies there)"
            raise ModelNotFound(f"{model.name}@{model.revision}", where, hint="Leave the revision out.")
        candidates = tuple(candidate for repo in chosen for candidate in _candidates(repo))
        candidates = with_file(model, candidates, str(self._root))
        if not candidates:
            looked_for = "no GGUF file, and no config.json with safetensors"
            raise NotAModel(str(chosen[0].folder), f"it holds {looked_for}.")
        refuse_if_all_damaged(candidates, lambda candidate: self._root / (candidate.repo_id or ""))
        return FoundModel(likeliest_id([candidate.base_model for candidate in candidates]), candidates, warnings)

    def _repos(self, model: ModelRef) -> list[LocalRepo]:
        if not self._root.is_dir():
            raise ModelNotFound(model.text, f"{self._root}, which is no folder")
        repos = [local_repo(f"{organisation}/{folder.name}", folder) for organisation, folder in self._folders()]
        if not repos:
            raise ModelNotFound(model.text, f"{self._root}, which holds no repos (folders ORG/NAME with files in them)")
        return repos

    def _folders(self) -> list[tuple[str, Path]]:
        root = self._root.resolve()
        found = [(parent.name, folder) for parent in subfolders(self._root) for folder in subfolders(parent)]
        # A link back to this folder, or to one above it, is no repo: it would hold all the others.
        return [(name, folder) for name, folder in found if not root.is_relative_to(folder.resolve())]


def _candidates(repo: LocalRepo) -> tuple[Candidate, ...]:
    publisher = repo.repo_id.partition("/")[0]
    files = files_under(repo.folder)
    return candidates_of(files, repo_id=repo.repo_id, publisher=publisher, base_model=repo.bases[0])
