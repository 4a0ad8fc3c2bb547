"""What to ask the Hub for a name, and which of the answers are quants of the model that the name means.

Pure: works on listings. A tag `base_model:quantized:ORG/NAME` is believed where the repo's own name does not say
otherwise: the Hub infers the relation for every GGUF repo, also for those of a fine-tune whose card names what it was
trained from.
"""

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from qrun.aliases import old_ids, todays_id, todays_name
from qrun.errors import AmbiguousModel
from qrun.hub_info import RepoInfo, RepoListing
from qrun.model import Format
from qrun.model_card import ModelCard
from qrun.name_match import NameMatch, is_same_model, match_name, name_key, same_keys, short_name
from qrun.name_words import MAKERS, words_of
from qrun.packed_name import MODIFYING_WORDS, base_names, has_known_organisation, likeliest_id
from qrun.publishers import is_trusted, publisher_rank
from qrun.quant import kind_of_file
from qrun.quant_config import is_pickle
from qrun.repo_match import bare_same

__all__ = [
    "ChosenBase",
    "HubRepo",
    "choose_base",
    "ids_of_base",
    "quant_queries",
    "quants_of",
    "read_listing",
    "search_queries",
    "wider_queries",
    "worth_asking",
]

Query = tuple[str, tuple[str, ...]]  # words to search for, tags that must be there

_VARIANT_WORDS = MAKERS | {"instruct", "it", "inst", "chat", "base", "pt"}
_START = 3  # letters of the first word
_SIZE = re.compile(r"[0-9]+x[0-9.]+b|[ae]?[0-9.]+[bm]")
# Who publishes other organisations' weights unchanged under their names, beside quants.
_COPIERS = frozenset({"nousresearch"})
# What a name adds to the base's where the weights are still the base's.
_NEUTRAL = frozenset({
    "gguf", "ggml", "mlx", "exl", "awq", "gptq", "bnb", "fp", "int", "imatrix", "imat", "quant", "quants",
    "quantized", "unsloth", "dynamic", "ud", "text", "lm", "mtp", "hf", "bit", "bits", "bpw", "static", "w", "a",
    "h", "g", "i", "q", "k", "experimental", "autoround", "optimized",
})  # fmt: skip  # a list of words
# What the names of a base's quants mostly leave out of its own.
_STEM_ENDS = re.compile(r"^(?:meta|nvidia|c4ai)-|(?:-q4_0-unquantized|-bf16|-hf)$", re.IGNORECASE)
# What names of plain weights may end in: of anybody's, and of organisations that publish models of their own.
_PLAIN = re.compile(r"[-_]hf$", re.IGNORECASE)
_OFFICIAL_PLAIN = re.compile(r"[-_]bf16$", re.IGNORECASE)
_TRAINED = frozenset({"finetune", "adapter", "merge"})
_NAMED_FORMATS: tuple[Format, ...] = ("exl3", "exl2", "awq", "gptq", "fp8", "bnb", "mlx")
_TAG_OF_FORMAT: Mapping[Format, str] = {"bnb": "bitsandbytes"}
_NAMED_CHOICES = 3  # of the other models that a loose name could mean
# How many repos of each format are worth a call each, before what is left goes to the best of any.
_PLACES: Mapping[Format, int] = {
    "gguf": 10, "mlx": 5, "exl2": 3, "exl3": 3, "awq": 2, "gptq": 2, "fp8": 1, "bnb": 1, "safetensors": 1,
}  # fmt: skip  # a table


@dataclass(frozen=True, slots=True)
class HubRepo:
    """A repo of a listing with the base models that its tags or name can mean, the likeliest first.

    `format` is told from names and tags, to be confirmed by config.json; `packed`: it is somebody's quant or copy in
    another format, no model of its own; `has_weights`: of a model, on main or on branches.
    """

    listing: RepoListing
    bases: tuple[str, ...]
    format: Format
    packed: bool
    has_weights: bool

    @property
    def repo_id(self) -> str:
        """`ORG/NAME`."""
        return self.listing.repo_id

    @property
    def publisher(self) -> str:
        """The organisation."""
        return self.repo_id.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class ChosenBase:
    """The base that a name means, as an id or a bare name, and what is to be said about a loose spelling.

    `repos`: those of exactly the name that was asked for, where it is a repo's and no base's.
    """

    base: str
    warnings: tuple[str, ...] = ()
    repos: tuple[HubRepo, ...] = ()


def search_queries(name: str) -> tuple[Query, ...]:
    """The searches that find a model by a name in any spelling: at most six, to be sent at once.

    Every word of a search must be a part of the repo's id, so a hyphen finds what is spelled with it and blanks find
    all orders. Instruct and its like are left out once: official names write `it`, or nothing. EXL repos are looked for
    at once because their branches take a further round.
    """
    bare = name.rpartition("/")[2]
    typed = "-".join(re.findall(r"[\w.]+", bare.lower()))
    words = words_of(bare)
    core = [word for word in words if word not in _VARIANT_WORDS] or list(words)
    spelled = [(typed, ()), (typed, ("gguf",)), ("-".join(words), ()), ("-".join(core), ()), (" ".join(core), ())]
    spelled.append((" ".join([*core, "exl"]), ()))
    return tuple(dict.fromkeys((text, tags) for text, tags in spelled if text)) if core else ()


def wider_queries(name: str) -> tuple[Query, ...]:
    """The searches for a name that nothing was found for: without sizes, without its last word, by its start."""
    words = [word for word in words_of(name) if word not in _VARIANT_WORDS]
    family = [word for word in words if not _SIZE.fullmatch(word)]
    sizes = [word for word in words if _SIZE.fullmatch(word)]
    start = [word[:_START] for word in words[:1]]  # `gptoss`, `qwne3`: the ends are where they go wrong
    spelled = [" ".join(family), " ".join(words[:-1]), " ".join([*start, *sizes]), " ".join(words[:1])]
    return tuple(dict.fromkeys((text, ()) for text in spelled if len(text) > 1))


def quant_queries(bases: Sequence[str]) -> tuple[Query, ...]:
    """The searches for the quants of a base, of whose ids the first is today's: by relation, and by name.

    At most nine, to be sent at once.
    """
    by_relation = [("", (f"base_model:quantized:{base}",)) for base in bases[:2] if "/" in base]
    stem, *others = dict.fromkeys(_stem(name) for name in (bases[0], short_name(bases[0]), *bases[1:]))
    # Newer repos carry their format as a tag, older ones only in their name.
    by_name = [(stem, ("gguf",)), (f"{stem} gguf", ()), (stem, ("mlx",))]
    by_name += [(f"{stem} {word}", ()) for word in ("exl", "awq", "gptq")]
    by_name += [(other, ()) for other in others[:1] if stem.lower() not in other.lower()]
    return tuple(dict.fromkeys([*by_relation, *by_name]))


def read_listing(listing: RepoListing | RepoInfo) -> HubRepo:
    """One row with what it means."""
    if isinstance(listing, RepoInfo):
        listing = _as_listing(listing)
    known = _format(listing, {tag.lower() for tag in listing.tags})
    packed = _is_packed(listing, known)
    bases = _bases(listing) if packed else (todays_id(listing.repo_id),)
    has_weights = listing.paths is None or known in ("exl2", "exl3") or any(map(_is_weights, listing.paths))
    return HubRepo(listing, bases, known, packed, has_weights)


def choose_base(text: str, name: str, repos: Sequence[HubRepo]) -> ChosenBase | None:
    """The base that `name`, no repo id, means among those of `repos`; None where nothing answers to it.

    Organisations that are known for models of their own come first. Raises AmbiguousModel for `text`, what the user
    wrote.
    """
    groups = _groups(repos)
    there = {repo.repo_id for repo in repos if not repo.packed}
    if base_names(name)[0] != name and (exact := _of_that_name(name, repos)):
        base = _likeliest(_group_of(_likeliest([repo.bases[0] for repo in exact], there), groups), there)
        return ChosenBase(base, repos=tuple(repo for repo in exact if any(_same(one, base) for one in repo.bases)))
    ids = {_likeliest(group, there): len(group) for group in groups}
    match = _match(name, list(ids))
    if match.name is not None:
        return ChosenBase(match.name, _loose(name, match, ids))
    if match.others:
        raise AmbiguousModel(text, sorted(match.others, key=lambda one: _standing(one, ids)))
    return None


def ids_of_base(base: str, repos: Iterable[HubRepo]) -> tuple[str, ...]:
    """The base's id and the others that it goes by in tags: those it had before, and copies' in the tags of `repos`."""
    used = Counter(one for repo in repos for one in repo.bases if one != base and _same(one, base) and "/" in one)
    return tuple(dict.fromkeys((base, *old_ids(base), *(one for one, _ in used.most_common()))))


def quants_of(base: str, repos: Iterable[HubRepo], *, also: Sequence[str] = ()) -> tuple[HubRepo, ...]:
    """The repos that hold the weights of `base`: its quants, itself, and unchanged copies, each once.

    `also`: further ids of the same model.
    """
    chosen: dict[str, HubRepo] = {}
    for repo in repos:
        of_base = repo.has_weights and any(_same(one, model) for one in repo.bases for model in (base, *also))
        if of_base and (repo.packed or _is_copy(repo, base)):
            chosen.setdefault(repo.repo_id, repo)
    return tuple(chosen.values())


def worth_asking(base: str, repos: Iterable[HubRepo], most: int) -> tuple[HubRepo, ...]:
    """The `most` repos to ask for their files: by publisher and downloads, each format having its places first."""
    ranked = sorted(
        repos,
        key=lambda repo: (publisher_rank(repo.publisher, base), -(repo.listing.downloads or 0), repo.repo_id),
    )
    first: list[HubRepo] = []
    taken: Counter[Format] = Counter()
    for repo in ranked:
        if taken[repo.format] < _PLACES[repo.format]:
            taken[repo.format] += 1
            first.append(repo)
    ids = {repo.repo_id for repo in first}
    return (*first, *(repo for repo in ranked if repo.repo_id not in ids))[:most]


def _stem(model_id: str) -> str:
    return _STEM_ENDS.sub("", model_id.rpartition("/")[2])


def _as_listing(info: RepoInfo) -> RepoListing:
    paths = tuple(file.path for file in info.files)
    return RepoListing(
        info.repo_id, info.commit, info.tags, info.downloads, info.last_modified, info.gated, info.library_name, paths
    )


def _format(listing: RepoListing, tags: set[str]) -> Format:
    words = set(re.findall(r"[a-z]+[0-9]?", listing.repo_id.lower()))
    if "gguf" in tags or any(path.lower().endswith(".gguf") for path in listing.paths or ()):
        return "gguf"
    if listing.paths is None and "gguf" in words:
        return "gguf"
    for known in _NAMED_FORMATS:
        if known in words or _TAG_OF_FORMAT.get(known, known) in tags or listing.library_name == known:
            return known
    return "safetensors"


def _is_packed(listing: RepoListing, known: Format) -> bool:
    """Whether it is a model in somebody's packing. Some models are FP8 or hold a GGUF from the start: no quants."""
    organisation, _, bare = listing.repo_id.rpartition("/")
    plain = _PLAIN.sub("", bare) if known == "safetensors" else bare
    if has_known_organisation(listing.repo_id):
        plain = _OFFICIAL_PLAIN.sub("", plain)
    if base_names(plain)[0] != plain or _card(listing.tags).relation == "quantized":
        return True
    if known == "gguf":
        return not any(path.endswith(".safetensors") for path in listing.paths or ())
    return known != "safetensors" and _is_copier(organisation)


def _is_weights(path: str) -> bool:
    if path.lower().endswith(".gguf"):
        return kind_of_file(path) == "model"
    name = path.rpartition("/")[2]
    return (name.endswith(".safetensors") and not name.startswith("adapter")) or is_pickle(path)


def _bases(listing: RepoListing) -> tuple[str, ...]:
    """The bases of a packed repo: its tag's where its name does not contradict it, else those of its name."""
    names = tuple(todays_name(name) or todays_id(name) for name in base_names(listing.repo_id))
    if names == (listing.repo_id.rpartition("/")[2],) and not _is_copier(listing.repo_id.rpartition("/")[0]):
        names = (*names, listing.repo_id)  # nothing in the name says that it is anybody else's model
    card = _card(listing.tags)
    if len(card.base_models) != 1:
        return names
    base, publisher = todays_id(card.base_models[0]), listing.repo_id.rpartition("/")[0]
    spelled = any(bare_same(name, base) for name in names)
    if card.relation in _TRAINED:
        if spelled and not is_trusted(publisher):  # trained on, under the old name: its own model
            return (f"{publisher}/{names[0].rpartition('/')[2]}",)
        return (base,) if spelled else names
    if spelled or (card.relation == "quantized" and not _says_more(names[0], base, publisher)):
        return (base,)
    return names


def _card(tags: Iterable[str]) -> ModelCard:
    """What the tags say of the base: `base_model:ORG/NAME`, and the same with the relation between."""
    bases: list[str] = []
    relation = None
    for tag in tags:
        kind, _, rest = tag.partition(":")
        if kind != "base_model" or "/" not in rest:
            continue
        named, colon, base = rest.rpartition(":")
        relation = named if colon else relation
        bases.append(base)
    return ModelCard(tuple(dict.fromkeys(bases)), relation)


def _says_more(name: str, base: str, publisher: str) -> bool:
    """Whether a repo's name has words that the base's has not, so that it speaks of another model."""
    known = set(name_key(base)) | set(words_of(publisher)) | set(words_of(base.rpartition("/")[0]))
    more = set(name_key(name)) - known - _NEUTRAL
    return bool(more & MODIFYING_WORDS) if is_trusted(publisher) else bool(more)


def _of_that_name(name: str, repos: Sequence[HubRepo]) -> list[HubRepo]:
    wanted = name.casefold()
    return [repo for repo in repos if repo.packed and repo.repo_id.rpartition("/")[2].casefold() == wanted]


def _match(name: str, ids: Sequence[str]) -> NameMatch:
    if MODIFYING_WORDS & set(words_of(name)):  # makers of models publish none such; who modifies is not better known
        return match_name(name, ids)
    official = match_name(name, [one for one in ids if has_known_organisation(one)])
    return official if official.name is not None or official.others else match_name(name, ids)


def _loose(name: str, match: NameMatch, ids: Mapping[str, int]) -> tuple[str, ...]:
    if not match.loose:
        return ()
    others = sorted(match.others, key=lambda one: _standing(one, ids))
    more = f" and {len(others) - _NAMED_CHOICES} more" if len(others) > _NAMED_CHOICES else ""
    also = f"; it could also mean {', '.join(others[:_NAMED_CHOICES])}{more}" if others else ""
    return (f"{name!r} is taken as {match.name}{also}.",)


def _standing(model_id: str, ids: Mapping[str, int]) -> tuple[bool, int, str]:
    """The best known first: organisations that publish models, then what the most repos are made from."""
    return not has_known_organisation(model_id), -ids.get(model_id, 0), model_id.casefold()


def _groups(repos: Iterable[HubRepo]) -> list[list[str]]:
    """The bases of the repos by model, each as often as it is named; a bare name goes with the id that it spells."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for repo in repos:
        for base in repo.bases:
            groups.setdefault(name_key(base), []).append(base)
    for key in list(groups):
        for model_id in {one for one in groups.get(key, ()) if "/" in one}:
            for other in same_keys(model_id) - {key}:
                if not any("/" in one for one in groups.get(other, ("/",))):
                    groups[key] += groups.pop(other)
    return list(groups.values())


def _group_of(base: str, groups: Iterable[list[str]]) -> list[str]:
    return next(group for group in groups if base in group)


def _likeliest(ids: Sequence[str], there: Container[str]) -> str:
    """The id most likely meant: not a copy's where the original is there, and of like ones one that is a repo."""
    originals = [one for one in ids if "/" in one and not _is_copier(one.rpartition("/")[0])] or ids
    likeliest = likeliest_id(originals)
    known = has_known_organisation(likeliest)
    repos = [one for one in originals if one in there and has_known_organisation(one) == known]
    return likeliest_id(repos) if repos else likeliest


def _is_copier(organisation: str) -> bool:
    return is_trusted(organisation) or organisation.casefold() in _COPIERS


def _same(one: str, base: str) -> bool:
    """Whether two ids are of one model; one that a publisher copied under its own name is."""
    return is_same_model(one, base) or (_is_copier(one.rpartition("/")[0]) and bare_same(one, base))


def _is_copy(repo: HubRepo, base: str) -> bool:
    """Whether an unpacked repo is the base itself, or an unchanged copy of it."""
    return repo.repo_id.casefold() == base.casefold() or _is_copier(repo.publisher)
