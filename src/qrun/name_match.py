"""Which of the models at hand a name means.

Pure: works on names alone. A name is compared as its words and numbers: case, punctuation and organisation do not
count, every word and number does. `3` is not `3.1`, `8b` not `70b`, Instruct not the base, and a word that only one
side has (`coder`, `uncensored`) makes another model. Nothing is guessed silently: what was spelled loosely is answered
together with what else it could mean.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from qrun.aliases import id_of_alias, known_size, other_names
from qrun.name_words import FAMILIES, VARIANTS, aligned, is_size, joined, squeezed, tokens
from qrun.packed_name import has_known_organisation

__all__ = ["NameMatch", "is_same_model", "match_name", "name_key", "same_keys", "short_name"]

_SHORTEST_STEM = 3  # of an organisation's name: `gradient` of gradientai
_DATE = re.compile(r"[0-9]{4}|[0-9]{6}")  # of a release: 0528, 2507
_CHATTING = frozenset({"instruct", "chat"})  # what a name without a variant mostly means


@dataclass(frozen=True, slots=True)
class NameMatch:
    """What a name means among the models at hand.

    `name` is None where there is no model of that name, or no clear preference. `others` are the models it could mean
    as well: beside a `name` for a warning, without one the choices to offer. `loose` says that the spelling does not
    name the model in full.
    """

    name: str | None
    others: tuple[str, ...] = ()
    loose: bool = False


def match_name(query: str, among: Sequence[str]) -> NameMatch:
    """The model of `among` (ids `ORG/NAME` or bare names) that `query` means.

    1. An id or a name spelled exactly so, case ignored, is that model; later releases of it are named beside it.
    2. The same words and numbers are that model, unless it is a base whose Instruct model is at hand too: a looser
       spelling (`llama3 8b`) mostly means that one, so it is taken, the base named beside it.
    3. Words that leave out sizes, dates or the variant may mean several: the only Instruct model beside its base is
       preferred; else there is no clear preference.
    """
    names = sorted(set(among), key=str.casefold)
    if exact := _spelled_exactly(query, names):
        return _with_releases(query, exact[0], names) if len(exact) == 1 else NameMatch(None, tuple(exact))
    if alias := id_of_alias(query):
        query = alias
    same = [name for name in names if is_same_model(query, name)]
    looser = [] if "/" in query else [name for name in names if name not in same and _could_mean(query, name)]
    if same:
        return _among_same(query, same, looser, names)
    if len(looser) == 1:
        return NameMatch(looser[0], loose=True)
    return _preferred(query, looser)


def name_key(name: str) -> tuple[str, ...]:
    """The words and numbers of a model's name in one order: equal for all spellings of one model."""
    return tuple(sorted(tokens(name.rpartition("/")[2])))


@lru_cache(maxsize=16384)
def same_keys(model_id: str) -> frozenset[tuple[str, ...]]:
    """The keys by which an id is known without its organisation.

    Its name's; with the organisation's words (`defog-sqlcoder`); without those that the name repeats
    (`Llama-3-8B-Instruct-1048k` of gradientai/…-Gradient-1048k); with its size, where that is known; other names.
    """
    organisation, _, bare = model_id.rpartition("/")
    words = list(tokens(bare))
    keys = [words]
    if organisation:
        keys.append([*tokens(organisation), *words])
        keys.append(list(tokens(short_name(model_id))))
    if size := known_size(model_id):
        keys.append([*words, size])
    keys += [list(tokens(name)) for name in other_names(model_id)]
    return frozenset(tuple(sorted(key)) for key in keys)


def short_name(model_id: str) -> str:
    """The name without the words that only repeat its organisation's; the whole name where little would be left."""
    organisation, _, bare = model_id.rpartition("/")
    parts = re.split(r"[-_ ]+", bare)
    shorter = [part for part in parts if not _is_stem(part.lower(), organisation)]
    left = tokens("-".join(shorter))
    return "-".join(shorter) if len(shorter) < len(parts) and any(map(_tells, left)) else bare


def is_same_model(one: str, other: str) -> bool:
    """Whether two names spell one model. Organisations must agree where both are given; joined words are one word."""
    org, other_org = one.rpartition("/")[0], other.rpartition("/")[0]
    if org and other_org and org.casefold() != other_org.casefold():
        return False
    mine, theirs = tokens(one.rpartition("/")[2]), tokens(other.rpartition("/")[2])
    if not mine or not theirs:
        return one.casefold() == other.casefold()
    if sorted(mine) == sorted(theirs) or joined(mine) == joined(theirs):
        return True
    if bool(org) == bool(other_org):
        return False
    return name_key(one) in same_keys(other) if other_org else name_key(other) in same_keys(one)


def _spelled_exactly(query: str, names: Sequence[str]) -> list[str]:
    wanted = query.strip().casefold()
    return [name for name in names if wanted in (name.casefold(), name.rpartition("/")[2].casefold())]


def _with_releases(query: str, name: str, names: Sequence[str]) -> NameMatch:
    """The model itself, and beside it those of its releases that differ in their date alone (DeepSeek-R1-0528)."""
    organisation = name.rpartition("/")[0]
    if "/" in query or not organisation:
        return NameMatch(name)
    others = [one for one in names if one.rpartition("/")[0] == organisation and _is_release(one, name)]
    return NameMatch(name, tuple(others), loose=bool(others))


def _is_release(name: str, of: str) -> bool:
    more = _left_out(of.rpartition("/")[2], name)
    fewer = Counter(tokens(of.rpartition("/")[2])) - Counter(tokens(name.rpartition("/")[2]))
    return bool(more) and not fewer and all(map(_DATE.fullmatch, more))


def _left_out(query: str, name: str) -> set[str]:
    has = tokens(name.rpartition("/")[2])
    return set((Counter(has) - Counter(aligned(tokens(query), has))).elements())


def _could_mean(query: str, name: str) -> bool:
    """Whether `query` names no more than `name` has, and leaves out nothing that would make it another model."""
    organisation, _, bare = name.rpartition("/")
    has = Counter(tokens(bare))
    asked = Counter(aligned(tokens(query), tokens(bare)))
    more = asked - has
    of_organisation = {word for word in asked | has if _is_of(word, organisation)}
    unknown = set(more) - {"base"} - of_organisation  # `gradientai llama 3 8b`, `gemma 4 31b base`
    if unknown and not _is_its_size(unknown, name, named=bool(set(more) & of_organisation)):
        return False
    words = {token for token in asked & has if token.isalpha()}
    if not words - VARIANTS or ("base" in more and "instruct" in has):
        return False
    left_words = {token for token in has - asked if token.isalpha()} - VARIANTS - of_organisation
    if any(map(is_size, asked & has)) and has_known_organisation(name):
        left_words -= {"distill"}  # `deepseek-r1:8b`: the plain model has no such size
    return not left_words or (left_words <= FAMILIES and bool(words - FAMILIES - VARIANTS))


def _is_of(word: str, organisation: str) -> bool:
    return word in tokens(organisation) or _is_stem(word, organisation)


def _is_stem(word: str, organisation: str) -> bool:
    """Whether an organisation's name begins with a model's word: `tng` of tngtech. Families are no such words."""
    known = word in FAMILIES or word in VARIANTS or len(word) < _SHORTEST_STEM or not word.isalpha()
    return not known and squeezed(organisation).startswith(word)


def _tells(word: str) -> bool:
    return word.isalpha() and word not in VARIANTS


def _is_its_size(unknown: set[str], name: str, *, named: bool) -> bool:
    """Whether what a name has not is its size: known so, or of a model that is named with its organisation."""
    if len(unknown) != 1 or not all(map(is_size, unknown)) or any(map(is_size, tokens(name.rpartition("/")[2]))):
        return False
    known = known_size(name)
    return known in unknown if known else named


def _among_same(query: str, same: Sequence[str], looser: Sequence[str], names: Sequence[str]) -> NameMatch:
    if len(same) > 1:
        return NameMatch(None, tuple(same))
    chatting = [name for name in looser if len(left := _left_out(query, name)) == 1 and left <= _CHATTING]
    if len(chatting) == 1:
        return NameMatch(chatting[0], (*same, *(name for name in looser if name not in chatting)), loose=True)
    return _with_releases(query, same[0], names)


def _preferred(query: str, names: Sequence[str]) -> NameMatch:
    """The one Instruct model where all others are only its base, all of one release; else none."""
    left = {name: _left_out(query, name) for name in names}
    shared = set.intersection(*left.values()) if left else set()
    chatting = [name for name in names if len(more := left[name] - shared) == 1 and more <= _CHATTING]
    bases = [name for name in names if not left[name] - shared - {"base"}]
    if len(chatting) == 1 and len(chatting) + len(bases) == len(names):
        return NameMatch(chatting[0], tuple(bases), loose=True)
    return NameMatch(None, tuple(names), loose=True)
