"""Which of the repos on this disk a MODEL means: the rules that all local sources of repos share.

Names are told from the repos' ids and the heads of their READMEs alone; no weights file is opened.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qrun.errors import AmbiguousModel, ModelNotFound
from qrun.local_files import read_text_head
from qrun.model import Candidate
from qrun.model_card import MAX_HEAD_BYTES, ModelCard, parse_card
from qrun.name_match import base_names, is_same_model, likeliest_id, match_name, name_key
from qrun.names import ModelRef, nearest

__all__ = ["LocalRepo", "base_of_repo", "choose_repos", "local_repo", "with_file"]


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


def _holding(looked_in: str, bases: Sequence[str]) -> str:
    more = f" and {len(bases) - 3} more" if len(bases) > 3 else ""  # noqa: PLR2004  # three say what is there
    return f"{looked_in} (it has {', '.join(bases[:3])}{more})"


def _spelled_base(name: str, bases: Sequence[str]) -> str | None:
    """The base of exactly that id, else of exactly that name; case does not count."""
    wanted = name.casefold()
    if ids := [base for base in bases if base.casefold() == wanted]:
        return ids[0]
    named = [base for base in bases if base.rpartition("/")[2].casefold() == wanted]
    return likeliest_id(named) if named else None


def _repos_of(base: str, repos: Sequence[LocalRepo]) -> tuple[list[LocalRepo], tuple[str, ...]]:
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
