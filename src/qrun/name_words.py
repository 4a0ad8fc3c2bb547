"""A model's name as its words and numbers, by which names are compared.

Pure: works on text alone. Case and punctuation do not count; `it` is Instruct; `_` between digits is a point; the
makers' names that stand before a family's (`NVIDIA-Nemotron`, `Meta-Llama`) say nothing.
"""

import re
from collections.abc import Collection, Sequence
from functools import lru_cache

__all__ = ["FAMILIES", "MAKERS", "VARIANTS", "aligned", "is_size", "joined", "squeezed", "tokens", "words_of"]

_TOKEN = re.compile(
    r"[0-9]+x[0-9.]+b"  # 8x7b
    r"|(?<![a-z])[ae][0-9.]*[0-9]b|(?<=[0-9]b)a[0-9.]*[0-9]b"  # a3b: active parameters; e4b: effective ones
    r"|[0-9]+(?:\.[0-9]+)*b(?=a[0-9])"  # 21ba3b
    r"|[0-9]+hz(?![a-z])"  # 12hz: frames of speech a second
    r"|[0-9]+(?:\.[0-9]+)*[a-z](?![a-z])"  # 8b, 128k, 3n, 4o, 4.6v
    r"|[0-9]+(?:\.[0-9]+)*|[a-z]+"
)
_SIZE = re.compile(r"[0-9]+(?:\.[0-9]+)*[bm]")
# Of the plain weights: Google's of a QAT model, NVIDIA's of all. Their quants go by the name without it.
_UNQUANTIZED = re.compile(r"-(?:q4_0-unquantized|bf16)$")
_SAME_WORD = {"it": "instruct", "inst": "instruct", "pt": "base", "pretrained": "base"}
# Makers that put their names before some models' and not before others', and one publisher's mark.
MAKERS = frozenset({"hf", "gguf", "meta", "nvidia", "google", "microsoft", "ibm", "openai", "mistralai", "hugston"})
VARIANTS = frozenset({"instruct", "chat", "base", "thinking", "thinker", "reasoning"})
# Words that a spelling may leave out where another word still tells the model: `hermes 3 8b` of Hermes-3-Llama-3.1-8B,
# `mythomax 13b` of MythoMax-L2-13b.
FAMILIES = frozenset({
    "llama", "l", "qwen", "mistral", "mixtral", "gemma", "phi", "yi", "llava", "deepseek", "preview", "text", "super",
    "moe",
})  # fmt: skip  # a list of words
_MOST_JOINED = 3  # words written as one: `open hermes` and `openhermes`, `small thinker lm`


def words_of(name: str) -> tuple[str, ...]:
    """The words and numbers of a name as it writes them, in small letters and in its order."""
    return tuple(_TOKEN.findall(name.rpartition("/")[2].lower()))


@lru_cache(maxsize=16384)
def tokens(name: str) -> tuple[str, ...]:
    """The same in one spelling, without what says nothing. An organisation before a `/` is a word like any other."""
    text = _UNQUANTIZED.sub("", name.lower())
    text = re.sub(r"(?<=[0-9])_(?=[0-9]{1,2}(?![0-9a-z]))", ".", text)  # Llama-3_3, MiniCPM-V-4_5; not saiga_llama3_8b
    text = re.sub(r"(?<![a-z])v(?=[0-9])", "", text)  # v0.3 is 0.3
    text = re.sub(r"(?<=[a-z0-9])\+", " plus ", text)  # Command R+ is not Command R
    text = text.replace("c4ai-", "")  # Cohere's older names: c4ai-command-r-plus
    words = [_SAME_WORD.get(token, token) for token in _TOKEN.findall(text)]
    return tuple(_plain_number(word) for word in words if word not in MAKERS)


def joined(words: Sequence[str]) -> str:
    """All in a row, numbers kept apart: `codellama` is `code llama`, `2 5` is not `25`."""
    text = ""
    for word in words:
        text += f" {word}" if text[-1:].isalnum() and word[0].isdigit() and text[-1].isdigit() else word
    return text


def aligned(words: Sequence[str], like: Sequence[str]) -> list[str]:
    """`words` divided as `like` divides them: `translate gemma` as `translategemma`, and the other way round."""
    there, runs = set(like), _runs(like)
    result: list[str] = []
    rest = list(words)
    while rest:
        word = rest[0]
        if word in there or not word.isalpha():
            result.append(rest.pop(0))
        elif n := _joinable(rest, there):
            result.append("".join(rest[:n]))
            del rest[:n]
        else:
            result += runs.get(word, [word])
            del rest[0]
    return result


def is_size(token: str) -> bool:
    """Whether it counts parameters: `8b`, `270m`."""
    return _SIZE.fullmatch(token) is not None


def squeezed(text: str) -> str:
    """Letters and digits alone, small."""
    return re.sub(r"[^a-z0-9]+", "", text.lower())


def _plain_number(word: str) -> str:
    return re.sub(r"(?:\.0)+$", "", word) if word[0].isdigit() else word  # Dolphin3.0 is Dolphin 3


def _joinable(words: Sequence[str], there: Collection[str]) -> int:
    """How many of the first words are one of `there` in a row; 0: none."""
    for n in range(2, min(_MOST_JOINED, len(words)) + 1):
        if all(map(str.isalpha, words[:n])) and "".join(words[:n]) in there:
            return n
    return 0


def _runs(words: Sequence[str]) -> dict[str, list[str]]:
    """What neighbouring words are when written as one."""
    found: dict[str, list[str]] = {}
    for start in range(len(words)):
        for n in range(2, _MOST_JOINED + 1):
            run = list(words[start : start + n])
            if len(run) == n and all(map(str.isalpha, run)):
                found.setdefault("".join(run), run)
    return found
