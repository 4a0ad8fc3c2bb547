"""Which base model a quant repo's name speaks of: the name without what says how the model is packed.

Pure: works on names alone. Words that make another model of it (`abliterated`, `Neo`) stay in the name.
"""

import re
from collections import Counter
from collections.abc import Sequence

from qrun.name_words import is_size, tokens
from qrun.publishers import is_trusted
from qrun.quant import split_quant

__all__ = ["MODIFYING_WORDS", "base_names", "has_known_organisation", "likeliest_id"]

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
    r"(?:[-_. ]+(?:gguf|ggml|mlx|exl[23]|awq|gptq|bnb|unsloth|autoround|imatrix|imat|i1|h[468]|dynamic|optiq|"
    r"quantized|quants?|w[48]a(?:16|8)|ddwq|fp8|int[48]|[0-9.]+-?bpw|(?:mixed-)?[0-9](?:-[0-9])?-?bits?|hf"
    # methods: mixed precision, LocalAI's APEX, MagicQuant, OTQ, Cerebellum; a language is that of the matrix's text
    r"|mp|apex(?:-i)?(?:-(?:quality|balanced|compact|mini))?|magicquant(?:-hybrid)?|otq(?:-dyn)?|cerebellum"
    r"|(?:ud[-_])?(?:japanese|chinese|korean|multilingual)-i?mat(?:rix)?"
    r"|mtp|mmproj))$",  # what comes along: a draft head, a projector
    re.IGNORECASE,
)
# Where something follows the format: how it was made (`-GGUF-IQ-Imatrix`, `-gguf-small`), or a fine-tune's word.
_BEHIND_FORMAT = re.compile(r"[-_]gguf[-_]([^/]*)$", re.IGNORECASE)
_UNPACKED = re.compile(r"codex|chat|instruct|v[0-9]", re.IGNORECASE)  # a model's own words
# What publishers that train nothing call the text part of a model that sees.
_TEXT_PART = re.compile(r"-(?:text|lm)$", re.IGNORECASE)
# What a name adds where the weights are not the named model's any more, whoever says so.
MODIFYING_WORDS = frozenset({
    "abliterated", "abliteration", "uncensored", "heretic", "distill", "distilled", "reap", "ream", "merge",
    "merged", "lora", "lorablated", "finetune", "finetuned", "tuned", "dpo", "prism", "derestricted", "roleplay",
    "rp", "neo", "nsfw", "pruned", "obliterated", "gabliterated", "unredacted", "heresy", "sft", "ties", "distil",
})  # fmt: skip  # a list of words


def base_names(repo_id: str) -> tuple[str, ...]:
    """The base model's name as a quant repo's id gives it, the likeliest reading first.

    What says how the model is packed is dropped (`-i1-GGUF`, `-MLX-4bit`, `-bnb-4bit`, quant labels). Of
    `bartowski/Qwen_Qwen3-8B-GGUF` the first reading is `Qwen/Qwen3-8B`, the second the name as it stands; where the
    organisation is not one we know, the other way round.
    """
    publisher, _, bare = repo_id.rpartition("/")
    name = _unpacked(bare) or bare
    if is_trusted(publisher):
        name = _TEXT_PART.sub("", name)
    for mark in ("_", ".", "-"):
        for organisation, spelling in _ORGANISATION_OF.items():
            prefix = organisation + mark
            # `deepseek-ai-DeepSeek-V4` is seen too, but `Meta-Llama-3` and `Qwen-7B` are names as they stand.
            if name.lower().startswith(prefix) and (mark != "-" or organisation.endswith("-ai")):
                return f"{spelling}/{name[len(prefix) :]}", name
    organisation, _, rest = name.partition("_")
    if rest and publisher.lower() in _PREFIXING_PUBLISHERS and not any(map(is_size, tokens(organisation))):
        return name, f"{organisation}/{rest}"
    return (name,)


def likeliest_id(ids: Sequence[str]) -> str:
    """Of several ids of one name the one most likely meant: an organisation we know, then any, then the commonest."""
    counted = Counter(ids)
    return min(counted, key=lambda model: (_obscurity(model), -counted[model], model.casefold()))


def has_known_organisation(model_id: str) -> bool:
    """Whether the id is of an organisation that is known for models of its own."""
    return _obscurity(model_id) == 0


def _obscurity(model_id: str) -> int:
    organisation = model_id.rpartition("/")[0].lower()
    return 0 if organisation in _ORGANISATION_OF else 1 if organisation else 2


def _unpacked(name: str) -> str:
    while True:
        shorter = _PACKAGING.sub("", split_quant(_without_remarks(name))[0])
        if shorter == name:
            return name
        name = shorter


def _without_remarks(name: str) -> str:
    """`M-GGUF` of `M-GGUF-IQ-Imatrix`; the whole name where what follows is another model's word."""
    behind = _BEHIND_FORMAT.search(name)
    if behind is None or MODIFYING_WORDS & set(tokens(behind[1])) or _UNPACKED.search(behind[1]):
        return name
    return name[: behind.start()]
