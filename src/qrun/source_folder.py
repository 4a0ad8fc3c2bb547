"""Models in a folder of repos, `ORG/NAME/files`: the layout of the Hub on the user's own disk.

Names are told from the folders' names and the READMEs alone; headers are read only of the model that is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qrun.errors import AmbiguousModel, Failure, ModelNotFound, NotAModel
from qrun.local_files import files_under, read_text_head, subfolders
from qrun.model import Candidate
from qrun.model_card import MAX_HEAD_BYTES, ModelCard, parse_card
from qrun.model_folder import candidates_of, refuse_if_all_damaged, whole_file
from qrun.name_match import base_names, is_same_model, likeliest_id, match_name, name_key
from qrun.names import ModelRef, nearest
from qrun.source import FoundModel, Report, quiet

__all__ = ["FolderSource", "base_of_repo"]

_LOCAL_REVISIONS = (None, "main")  # a folder has one state of each repo, the one that lies there


@dataclass(frozen=True, slots=True)
class _Repo:
    """A repo's folder, and the base models that its card or name can mean, the likeliest first."""

    repo_id: str
    folder: Path
    bases: tuple[str, ...]


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

    def _find(self, model: ModelRef) -> FoundModel:
        repos = self._repos(model)
        chosen, warnings = self._choose(model, repos)
        if model.revision not in _LOCAL_REVISIONS:
            where = f"{self._root}, where repos have no revisions (only what lies there)"
            raise ModelNotFound(f"{model.name}@{model.revision}", where, hint="Leave the revision out.")
        candidates = tuple(candidate for repo in chosen for candidate in self._candidates(repo))
        if model.file is not None:
            candidates = self._with_file(model, candidates)
        if not candidates:
            looked_for = "no GGUF file, and no config.json with safetensors"
            raise NotAModel(str(chosen[0].folder), f"it holds {looked_for}.")
        refuse_if_all_damaged(candidates, self._root)
        return FoundModel(likeliest_id([candidate.base_model for candidate in candidates]), candidates, warnings)

    def _repos(self, model: ModelRef) -> list[_Repo]:
        if not self._root.is_dir():
            raise ModelNotFound(model.text, f"{self._root}, which is no folder")
        repos = [self._repo(organisation, folder) for organisation, folder in self._folders()]
        if not repos:
            raise ModelNotFound(model.text, f"{self._root}, which holds no repos (folders ORG/NAME with files in them)")
        return repos

    def _folders(self) -> list[tuple[str, Path]]:
        root = self._root.resolve()
        found = [(parent.name, folder) for parent in subfolders(self._root) for folder in subfolders(parent)]
        # A link back to this folder, or to one above it, is no repo: it would hold all the others.
        return [(name, folder) for name, folder in found if not root.is_relative_to(folder.resolve())]

    def _repo(self, organisation: str, folder: Path) -> _Repo:
        repo_id = f"{organisation}/{folder.name}"
        card = parse_card(read_text_head(folder / "README.md", MAX_HEAD_BYTES))
        return _Repo(repo_id, folder, base_of_repo(repo_id, card))

    def _choose(self, model: ModelRef, repos: Sequence[_Repo]) -> tuple[list[_Repo], tuple[str, ...]]:
        """The repos that the name means, and what is to be said about a loose spelling."""
        bases = [base for repo in repos for base in repo.bases]
        if base := _spelled_base(model.name, bases):
            return _repos_of(base, repos)
        if exact := [repo for repo in repos if model.name.casefold() in _spellings(repo.repo_id)]:
            return exact, ()
        match = match_name(model.name, _distinct(bases))
        if match.name is not None:
            also = f"; it could also mean {', '.join(match.others)}" if match.others else ""
            chosen, warnings = _repos_of(match.name, repos)
            loose = (f"{model.name!r} is taken as {match.name}{also}.",) if match.loose else ()
            return chosen, (*loose, *warnings)
        if match.others:
            raise AmbiguousModel(model.text, match.others)
        first_readings = _distinct([repo.bases[0] for repo in repos])
        near = nearest(model.name, first_readings)
        raise ModelNotFound(model.text, str(self._root) if near else self._holding(first_readings), near)

    def _holding(self, bases: Sequence[str]) -> str:
        more = f" and {len(bases) - 3} more" if len(bases) > 3 else ""  # noqa: PLR2004  # three say what is there
        return f"{self._root} (it has {', '.join(bases[:3])}{more})"

    def _candidates(self, repo: _Repo) -> tuple[Candidate, ...]:
        publisher = repo.repo_id.partition("/")[0]
        files = files_under(repo.folder)
        return candidates_of(files, repo_id=repo.repo_id, publisher=publisher, base_model=repo.bases[0])

    def _with_file(self, model: ModelRef, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        found = tuple(one for one in candidates if any(file.path == model.file for file in one.files))
        if found:
            return found
        paths = [one.files[0].path for one in candidates]
        raise ModelNotFound(f"{model.name}/{model.file}", str(self._root), nearest(str(model.file), paths))


def base_of_repo(repo_id: str, card: ModelCard) -> tuple[str, ...]:
    """The base models that a repo's card or name can mean, the likeliest first.

    A card's `base_model` is the quantized model only where it says `base_model_relation: quantized`, or where the
    repo's name spells that model: the same key names what a fine-tune started from, and a fine-tune is not its base.
    """
    names = base_names(repo_id)
    if len(card.base_models) != 1:
        return names
    base = card.base_models[0]
    if card.relation == "quantized" or (card.relation is None and any(_bare_same(name, base) for name in names)):
        return (base,)
    return names


def _spelled_base(name: str, bases: Sequence[str]) -> str | None:
    """The base of exactly that id, else of exactly that name; case does not count."""
    wanted = name.casefold()
    if ids := [base for base in bases if base.casefold() == wanted]:
        return ids[0]
    named = [base for base in bases if base.rpartition("/")[2].casefold() == wanted]
    return likeliest_id(named) if named else None


def _repos_of(base: str, repos: Sequence[_Repo]) -> tuple[list[_Repo], tuple[str, ...]]:
    """The repos of one base. Those of another organisation's model of the same name are left out, and that is said."""
    chosen = [repo for repo in repos if any(is_same_model(one, base) for one in repo.bases)]
    namesakes = {one for repo in repos if repo not in chosen for one in repo.bases if _bare_same(one, base)}
    warning = f"Left out are the quants of {', '.join(sorted(namesakes))}: the same name, not the same organisation."
    return chosen, (warning,) if namesakes else ()


def _spellings(repo_id: str) -> tuple[str, str]:
    return repo_id.casefold(), repo_id.rpartition("/")[2].casefold()


def _bare_same(one: str, other: str) -> bool:
    return is_same_model(one.rpartition("/")[2], other.rpartition("/")[2])


def _distinct(bases: Sequence[str]) -> list[str]:
    """One id for each model among `bases`."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for base in bases:
        groups.setdefault(name_key(base), []).append(base)
    return sorted((likeliest_id(group) for group in groups.values()), key=str.casefold)
