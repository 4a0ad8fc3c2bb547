"""Bases that answer to some words, each with the quant that would be chosen here.

Looked at by labels and sizes alone (`resolve_here` with `glance`), a few bases at once: what is served in the end is
decided on headers.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from qrun.errors import ModelNotFound
from qrun.hub_client import HubClient
from qrun.hub_errors import HubUnreachable
from qrun.hub_search import HubRepo, read_listing, search_queries
from qrun.hub_settings import HubSettings
from qrun.hub_threads import in_threads
from qrun.name_words import is_size, tokens
from qrun.packed_name import has_known_organisation
from qrun.repo_match import distinct
from qrun.resolution import Choice, Resolution
from qrun.stored_names import stored_bases

__all__ = ["Base", "Hit", "bases_on_hub", "bases_stored", "look_at"]

_AT_ONCE = 4  # decisions: each asks the Hub some thirty times (`hub_files`)


@dataclass(frozen=True, slots=True)
class Base:
    """A base model. `downloads`: of its own repo and its quants together, as far as the Hub tells; None: unknown."""

    repo_id: str
    downloads: int | None = None
    n_quants: int = 0
    gated: bool | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A base with the choice that is made for it here; where none can be, `why_not` says why."""

    base: Base
    chosen: Choice | None
    why_not: str | None = None


def bases_on_hub(words: str, hub: HubSettings) -> tuple[Base, ...]:
    """The bases whose names hold all of `words`, the nearest first: official ones, then the most downloaded.

    Raises ModelNotFound where there is none, HubUnreachable.
    """
    with closing(HubClient(hub)) as client:
        asks = [partial(client.models, search=text or None, tags=tags) for text, tags in search_queries(words)]
        rows = {row.repo_id: row for listing in client.together(asks) for row in listing}
    repos = [read_listing(row) for row in rows.values()]
    found = [base for base in _bases(repos) if _answers(base.repo_id, words)]
    if not found:
        hint = "Use fewer words, or parts of them."
        raise ModelNotFound(words, f"the Hub ({hub.shown_endpoint})", hint=hint)
    return tuple(sorted(found, key=partial(_standing, words)))


def bases_stored(words: str, hub: HubSettings) -> tuple[Base, ...]:
    """The same among what is stored. Raises ModelNotFound."""
    found = [Base(base) for base in stored_bases(hub.cache_dir) if _answers(base, words)]
    if not found:
        raise ModelNotFound(words, f"what is stored in {hub.cache_dir}", hint="qrun list shows what there is.")
    return tuple(found)


def look_at(bases: Sequence[Base], decide: Callable[[str], Resolution]) -> tuple[Hit, ...]:
    """Each of `bases` with what `decide` chooses for its id. Raises what `decide` raises, and HubUnreachable."""
    resolutions = in_threads([partial(decide, base.repo_id) for base in bases], most=_AT_ONCE)
    return tuple(_hit(base, resolution) for base, resolution in zip(bases, resolutions, strict=True))


def _hit(base: Base, resolution: Resolution) -> Hit:
    if isinstance(resolution.error, HubUnreachable):
        raise resolution.error  # of the search as a whole, not of this base
    if resolution.error is not None:
        return Hit(base, None, str(resolution.error))
    return Hit(base, resolution.chosen)


def _bases(repos: Iterable[HubRepo]) -> list[Base]:
    """Every base that one of `repos` is, or is likeliest a quant of."""
    of_base: defaultdict[str, list[HubRepo]] = defaultdict(list)
    for repo in repos:
        if repo.bases and "/" in repo.bases[0]:
            of_base[repo.bases[0]].append(repo)
    merged: list[Base] = []
    for base in distinct(of_base):
        held = of_base[base]
        own = next((repo.listing for repo in held if repo.repo_id == base), None)
        known = [repo.listing.downloads for repo in held if repo.listing.downloads is not None]
        n_quants = sum(repo.packed for repo in held)
        merged.append(Base(base, sum(known) if known else None, n_quants, own.gated if own else None))
    return merged


def _answers(base: str, words: str) -> bool:
    """Whether the id holds every one of the words, in any order and spelling, or a part of a word for each."""
    has, written = tokens(base), base.lower()
    return all(word in has or any(word in other for other in (written, *has)) for word in tokens(words))


def _standing(words: str, base: Base) -> tuple[bool, bool, bool, int, int, str]:
    """Whole words before parts of words, official before others; of names with a size those that say little more."""
    asked, has = tokens(words), tokens(base.repo_id.rpartition("/")[2])
    more = len(has) - len(asked) if any(map(is_size, asked)) else 0
    in_part = any(word not in tokens(base.repo_id) for word in asked)
    unofficial = not has_known_organisation(base.repo_id)
    return in_part, unofficial, base.n_quants == 0, more, -(base.downloads or 0), base.repo_id.casefold()
