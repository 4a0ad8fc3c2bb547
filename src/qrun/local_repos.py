"""Which of the repos on this disk a MODEL means: the rules that all local sources of repos share.

Names are told from the repos' ids and the heads of their READMEs alone; no weights file is opened.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qrun.errors import AmbiguousModel, ModelNotFound
from qrun.local_files import read_text_head
from qrun.model import Candidate
from qrun.model_card import MAX_HEAD_BYTES, parse_card
from qrun.name_match import match_name
from qrun.names import ModelRef, nearest
from qrun.repo_match import base_of_repo, distinct, repos_of, spelled_base, spellings

__all__ = ["LocalRepo", "choose_repos", "local_repo", "with_file"]


@dataclass(frozen=True, slots=True)
class LocalRepo:
    """A repo whose files lie in `folder`, and the base models that its card or name can mean, the likeliest first."""

    repo_id: str
    folder: Path
    bases: tuple[str, ...]


def local_repo(repo_id: str, folder: Path) -> LocalRepo:
    """The repo in `folder`, by the README.md there; without one, by its id alone."""
    card = parse_card(read_text_head(folder / "README.md", MAX_HEAD_BYTES))
    return LocalRepo(repo_id, folder, base_of_repo(repo_id, card))


def choose_repos(
    model: ModelRef, repos: Sequence[LocalRepo], looked_in: str
) -> tuple[list[LocalRepo], tuple[str, ...]]:
    """The repos of `repos` that the name means, and what is to be said about a loose spelling.

    An exact repo id or repo name is that repo alone. Raises AmbiguousModel, and ModelNotFound with the nearest names.
    """
    bases = [base for repo in repos for base in repo.bases]
    if base := spelled_base(model.name, bases):
        return repos_of(base, repos)
    if exact := [repo for repo in repos if model.name.casefold() in spellings(repo.repo_id)]:
        return exact, ()
    match = match_name(model.name, distinct(bases))
    if match.name is not None:
        also = f"; it could also mean {', '.join(match.others)}" if match.others else ""
        chosen, warnings = repos_of(match.name, repos)
        loose = (f"{model.name!r} is taken as {match.name}{also}.",) if match.loose else ()
        return chosen, (*loose, *warnings)
    if match.others:
        raise AmbiguousModel(model.text, match.others)
    first_readings = distinct([repo.bases[0] for repo in repos])
    near = nearest(model.name, first_readings)
    raise ModelNotFound(model.text, looked_in if near else _holding(looked_in, first_readings), near)


def with_file(model: ModelRef, candidates: Sequence[Candidate], looked_in: str) -> tuple[Candidate, ...]:
    """The candidates that hold the file that MODEL's address points at; all where it points at none.

    Raises ModelNotFound with the nearest files.
    """
    found = tuple(one for one in candidates if model.file in (None, *(file.path for file in one.files)))
    if found or model.file is None:
        return found
    paths = [one.files[0].path for one in candidates]
    raise ModelNotFound(f"{model.name}/{model.file}", looked_in, nearest(model.file, paths))


def _holding(looked_in: str, bases: Sequence[str]) -> str:
    more = f" and {len(bases) - 3} more" if len(bases) > 3 else ""  # noqa: PLR2004  # three say what is there
    return f"{looked_in} (it has {', '.join(bases[:3])}{more})"
