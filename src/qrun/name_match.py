"""Which of the models at hand a name means, and which base model a quant repo's name speaks of.

Pure: works on names alone. A name is compared as its words and numbers: case, punctuation and organisation do not
count, every word and number does. `3` is not `3.1`, `8b` not `70b`, Instruct not the base, and a word that only one
side has (`coder`, `uncensored`) makes another model. Nothing is guessed silently: what was spelled loosely is answered
together with what else it could mean.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from qrun.quant import split_quant

__all__ = [
    "NameMatch",
    "base_names",
    "has_known_organisation",
    "is_same_model",
    "likeliest_id",
    "match_name",
    "name_key",
    "words_of",
]

# Whose names stand before the model's in repos such as `bartowski/Qwen_Qwen3-8B-GGUF`, as the Hub spells them. Only
# these are cut off by themselves: an underscore may as well belong to the name (`Violet_Twilight-v0.2`).
_ORGANISATIONS = (
    "meta-llama", "Qwen", "google", "mistralai", "microsoft", "deepseek-ai", "openai", "nvidia", "ibm-granite",
    "HuggingFaceTB", "LiquidAI", "allenai", "tiiuae", "zai-org", "THUDM", "moonshotai", "MiniMaxAI", "baidu", "tencent",
    "CohereLabs", "CohereForAI", "NousResearch", "stepfun-ai", "ServiceNow-AI", "cerebras", "TheDrummer", "huihui-ai",
    "ai-sage", "inclusionAI", "mlabonne", "arcee-ai", "bytedance", "ByteDance-Seed", "Tesslate", "Nanbeige", "agentica",
    "agentica-org", "dphn", "cognitivecomputations", "deepcogito", "internlm", "openbmb", "LGAI-EXAONE", "swiss-ai",
    "utter-project", "EssentialAI", "open-thoughts", "PrimeIntellect", "rednote-hilab", "Kwaipilot", "Skywork",
)  # fmt: skip  # a list of names
_PREFIXING_PUBLISHERS = ("bartowski", "artusdev")  # who write ORG_NAME for whatever they quantize
_ORGANISATION_OF = {name.lower(): name for name in _ORGANISATIONS}

# What a publisher adds behind a model's name to say how it is packed.
_PACKAGING = re.compile(
    r"(?:[-_. ]+(?:gguf|ggml|mlx|exl[23]|awq|gptq|bnb|unsloth|autoround|imatrix|imat|i1|h[468]|dynamic|optiq|apex|"
    r"quantized|quants?|w[48]a(?:16|8)|ddwq|fp8|int[48]|[0-9.]+-?bpw|(?:mixed-)?[0-9](?:-[0-9])?-?bits?|hf)"
    r"|[-_](?:gguf|mlx)-[^/]*?(?:autoround|moq)[^/]*)$",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    r"[0-9]+x[0-9.]+b"  # 8x7b
    r"|(?<![a-z])[ae][0-9.]*[0-9]b"  # a3b: active parameters; e4b: effective ones
    r"|[0-9]+(?:\.[0-9]+)*b(?=a[0-9])"  # 21ba3b
    r"|[0-9]+(?:\.[0-9]+)*[a-z](?![a-z])"  # 8b, 128k, 3n, 4o, 4.6v
    r"|[0-9]+(?:\.[0-9]+)*|[a-z]+"
)
# Of the plain weights: Google's of a QAT model, NVIDIA's of all. Their quants go by the name without it.
_UNQUANTIZED = re.compile(r"-(?:q4_0-unquantized|bf16)$")
_SAME_WORD = {"it": "instruct", "inst": "instruct", "pt": "base", "pretrained": "base"}
_NOISE = {"hf", "gguf", "meta"}  # `Meta-Llama-3-8B` and `Llama-3-8B` are one model
_VARIANTS = {"instruct", "chat", "base", "thinking", "reasoning"}
# Words that a spelling may leave out where another word still tells the model: `hermes 3 8b` of Hermes-3-Llama-3.1-8B.
_FAMILIES = {"llama", "qwen", "mistral", "mixtral", "gemma", "phi", "yi", "llava", "preview", "text", "super", "moe"}


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

    1. An id or a name spelled exactly so, case ignored, is that model.
    2. The same words and numbers are that model, unless it is a base whose Instruct model is at hand too: a looser
       spelling (`llama3 8b`) mostly means that one, so it is taken, the base named beside it.
    3. Words that leave out sizes, dates or the variant may mean several: the only Instruct model beside its base is
       preferred; else there is no clear preference.
    """
    names = sorted(set(among), key=str.casefold)
    if exact := _spelled_exactly(query, names):
        return NameMatch(exact[0]) if len(exact) == 1 else NameMatch(None, tuple(exact))
    organisation = query.rpartition("/")[0]
    same = [name for name in names if is_same_model(query, name)]
    looser = [] if organisation else [name for name in names if name not in same and _could_mean(query, name)]
    if same:
        return _among_same(same, [name for name in looser if _left_out(query, name) == {"instruct"}], looser)
    if len(looser) == 1:
        return NameMatch(looser[0], loose=True)
    return _preferred(query, looser)


def name_key(name: str) -> tuple[str, ...]:
    """The words and numbers of a model's name in one order: equal for all spellings of one model."""
    return tuple(sorted(_tokens(name.rpartition("/")[2])))


def is_same_model(one: str, other: str) -> bool:
    """Whether two names spell one model. Organisations must agree where both are given; joined words are one word."""
    org, other_org = one.rpartition("/")[0], other.rpartition("/")[0]
    if org and other_org and org.casefold() != other_org.casefold():
        return False
    mine, theirs = _tokens(one.rpartition("/")[2]), _tokens(other.rpartition("/")[2])
    return sorted(mine) == sorted(theirs) or (bool(mine) and _joined(mine) == _joined(theirs))


def base_names(repo_id: str) -> tuple[str, ...]:
    """The base model's name as a quant repo's id gives it, the likeliest reading first.

    What says how the model is packed is dropped (`-i1-GGUF`, `-MLX-4bit`, `-bnb-4bit`, quant labels). Of
    `bartowski/Qwen_Qwen3-8B-GGUF` the first reading is `Qwen/Qwen3-8B`, the second the name as it stands; where the
    organisation is not one we know, the other way round.
    """
    publisher, _, bare = repo_id.rpartition("/")
    name = _unpacked(bare) or bare
    for mark in ("_", ".", "-"):
        for organisation, spelling in _ORGANISATION_OF.items():
            prefix = organisation + mark
            # `deepseek-ai-DeepSeek-V4` is seen too, but `Meta-Llama-3` and `Qwen-7B` are names as they stand.
            if name.lower().startswith(prefix) and (mark != "-" or organisation.endswith("-ai")):
                return f"{spelling}/{name[len(prefix) :]}", name
    organisation, _, rest = name.partition("_")
    if rest and publisher.lower() in _PREFIXING_PUBLISHERS:
        return name, f"{organisation}/{rest}"
    return (name,)


def likeliest_id(ids: Sequence[str]) -> str:
    """Of several ids of one name the one most likely meant: an organisation we know, then any, then the commonest."""
    counted = Counter(ids)
    return min(counted, key=lambda model: (_obscurity(model), -counted[model], model.casefold()))


def has_known_organisation(model_id: str) -> bool:
    """Whether the id is of an organisation that is known for models of its own."""
    return _obscurity(model_id) == 0


def words_of(name: str) -> tuple[str, ...]:
    """The words and numbers of a name as it writes them, in small letters and in its order."""
    return tuple(_TOKEN.findall(name.rpartition("/")[2].lower()))


def _obscurity(model_id: str) -> int:
    organisation = model_id.rpartition("/")[0].lower()
    return 0 if organisation in _ORGANISATION_OF else 1 if organisation else 2


def _unpacked(name: str) -> str:
    while True:
        shorter = _PACKAGING.sub("", split_quant(name)[0])
        if shorter == name:
            return name
        name = shorter


def _tokens(name: str) -> list[str]:
    text = _UNQUANTIZED.sub("", name.lower())
    text = re.sub(r"(?<=[0-9])_(?=[0-9])", ".", text)  # Llama-3_3, MiniCPM-V-4_5
    text = re.sub(r"(?<![a-z])v(?=[0-9])", "", text)  # v0.3 is 0.3
    words = [_SAME_WORD.get(token, token) for token in _TOKEN.findall(text)]
    return [_plain_number(word) for word in words if word not in _NOISE]


def _plain_number(word: str) -> str:
    return re.sub(r"(?:\.0)+$", "", word) if word[0].isdigit() else word  # Dolphin3.0 is Dolphin 3


def _joined(tokens: Sequence[str]) -> str:
    """All in a row, numbers kept apart: `codellama` is `code llama`, `2 5` is not `25`."""
    text = ""
    for token in tokens:
        text += f" {token}" if text[-1:].isalnum() and token[0].isdigit() and text[-1].isdigit() else token
    return text


def _spelled_exactly(query: str, names: Sequence[str]) -> list[str]:
    wanted = query.strip().casefold()
    return [name for name in names if wanted in (name.casefold(), name.rpartition("/")[2].casefold())]


def _left_out(query: str, name: str) -> set[str]:
    return set((Counter(_tokens(name.rpartition("/")[2])) - Counter(_tokens(query))).elements())


def _could_mean(query: str, name: str) -> bool:
    """Whether `query` names no more than `name` has, and leaves out nothing that would make it another model."""
    organisation, _, bare = name.rpartition("/")
    asked, has = Counter(_tokens(query)), Counter(_tokens(bare))
    more = asked - has
    if set(more) - {"base"} - set(_tokens(organisation)):  # `gradientai llama 3 8b`, `gemma 4 31b base`
        return False
    words = {token for token in asked & has if token.isalpha()}
    if not words or ("base" in more and "instruct" in has):
        return False
    left_words = {token for token in has - asked if token.isalpha()} - _VARIANTS - set(_tokens(organisation))
    return not left_words or (left_words <= _FAMILIES and bool(words - _FAMILIES - _VARIANTS))


def _among_same(same: Sequence[str], instructs: Sequence[str], looser: Sequence[str]) -> NameMatch:
    if len(same) > 1:
        return NameMatch(None, tuple(same))
    if len(instructs) == 1:
        return NameMatch(instructs[0], (*same, *(name for name in looser if name not in instructs)), loose=True)
    return NameMatch(same[0])


def _preferred(query: str, names: Sequence[str]) -> NameMatch:
    """The one Instruct model where all others are only its base; else none."""
    instructs = [name for name in names if _left_out(query, name) == {"instruct"}]
    bases = [name for name in names if not _left_out(query, name) - {"base"}]
    if len(instructs) == 1 and len(instructs) + len(bases) == len(names):
        return NameMatch(instructs[0], tuple(bases), loose=True)
    return NameMatch(None, tuple(names), loose=True)
