"""Which repos are quants of the model that a name means.

Pure: works on repo ids and on what a card or tags say of the base, so that a folder of repos, the Hub's cache and the
Hub answer by the same rules.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from qrun.model_card import ModelCard
from qrun.name_match import is_same_model, name_key
from qrun.packed_name import base_names, likeliest_id

__all__ = [
    "NamedRepo",
    "bare_same",
    "base_of_repo",
    "distinct",
    "repos_of",
    "spelled_base",
    "spellings",
]


class NamedRepo(Protocol):
    """A repo, and the base models that its card or name can mean, the likeliest first."""

    @property
    def repo_id(self) -> str:
        """`ORG/NAME`."""
        ...

    @property
    def bases(self) -> tuple[str, ...]:
        """Ids or bare names."""
        ...


R = TypeVar("R", bound=NamedRepo)


def base_of_repo(repo_id: str, card: ModelCard) -> tuple[str, ...]:
    """The base models that a repo's card or name can mean, the likeliest first.

    A card's `base_model` is the quantized model only where it says `base_model_relation: quantized`, or where the
    repo's name spells that model: the same key names what a fine-tune started from, and a fine-tune is not its base.
    """
    names = base_names(repo_id)
    if len(card.base_models) != 1:
        return names
    base = card.base_models[0]
    if card.relation == "quantized" or (card.relation is None and any(bare_same(name, base) for name in names)):
        return (base,)
    return names


def spelled_base(name: str, bases: Iterable[str]) -> str | None:
    """The base of exactly that id, else of exactly that name; case does not count."""
    wanted = name.casefold()
    known = list(bases)
    if ids := [base for base in known if base.casefold() == wanted]:
        return ids[0]
    named = [base for base in known if base.rpartition("/")[2].casefold() == wanted]
    return likeliest_id(named) if named else None


def repos_of(base: str, repos: Sequence[R]) -> tuple[list[R], tuple[str, ...]]:
    """The repos of one base, and the warning that names another organisation's models of the same name: left out."""
    chosen = [repo for repo in repos if any(is_same_model(one, base) for one in repo.bases)]
    taken = {repo.repo_id for repo in chosen}
    namesakes = {one for repo in repos if repo.repo_id not in taken for one in repo.bases if bare_same(one, base)}
    warning = f"Left out are the quants of {', '.join(sorted(namesakes))}: the same name, not the same organisation."
    return chosen, (warning,) if namesakes else ()


def spellings(repo_id: str) -> tuple[str, str]:
    """What names a repo exactly, in small letters: its id, and its name without the organisation."""
    return repo_id.casefold(), repo_id.rpartition("/")[2].casefold()


def bare_same(one: str, other: str) -> bool:
    """Whether two names spell one model, whatever the organisations."""
    return is_same_model(one.rpartition("/")[2], other.rpartition("/")[2])


def distinct(bases: Iterable[str]) -> list[str]:
    """One id for each model among `bases`, in alphabetical order."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for base in bases:
        groups.setdefault(name_key(base), []).append(base)
    return sorted((likeliest_id(group) for group in groups.values()), key=str.casefold)
