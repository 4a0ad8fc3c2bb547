"""Labels of quantizations: how people and file names write them, and the one spelling qrun uses for each.

Pure: works on text alone. A label is what a publisher calls a file; what is in it, its tensors say (`gguf_quant`).
GGUF types stand in capitals (`Q4_K_M`, `UD-Q4_K_XL`), all others in small letters (`4bit-g128`, `bf16`, `nf4`).
"""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Literal

__all__ = [
    "FILE_TYPES",
    "FileKind",
    "kind_of_file",
    "label_bits",
    "parse_quant",
    "quant_of_file",
    "same_quant",
    "shard_of_file",
    "split_quant",
]

FileKind = Literal["model", "mmproj", "imatrix", "draft", "vocab", "audio"]

# general.file_type of a GGUF header -> label (llama.h, enum llama_ftype). 1024 is llama.cpp's mark for a guess.
FILE_TYPES: Mapping[int, str] = {
    0: "f32", 1: "f16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "bf16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4",
    40: "Q1_0",
}  # fmt: skip  # a table reads better than forty lines

_FLOATS = {"f16": "f16", "fp16": "f16", "bf16": "bf16", "f32": "f32", "fp32": "f32"}

# A type as llama.cpp, ik_llama.cpp and publishers write it, and the suffixes they add (`_L`, `_XL`: larger embeddings).
_TYPE = (
    r"[IT]?Q[1-8](?:_(?:[0-9]S|[0148]|KSS|KS|KL|KT|K|BN|NL|XXS|XS|S|M|XXL|XL|L|P|R4|R8)(?![A-Z0-9]))+"
    r"|MXFP4_MOE(?=[0-9]?(?![A-Z0-9]))|(?:MXFP4|NVFP4|BF16|FP16|FP32|F16|F32)(?![A-Z0-9])"
)
_LABEL = re.compile(rf"(?<![A-Z0-9])(?:UD[-_.])?(?:{_TYPE})", re.IGNORECASE)
_WHOLE_LABEL = re.compile(rf"(UD)?[-_.]?({_TYPE})[0-9]?", re.IGNORECASE)
# `devstralQ4_K_M.gguf`: nothing parts name and label.
_GLUED_LABEL = re.compile(r"(?<=[a-z])I?Q[1-8]_(?:[01]|K(?:_[SML])?|NL|XXS|XS|[SM])$")
# `q4km`, `Q6K`, `IQ4NL`: the underscores are left out. `Q8` and `Q6` can only mean one type, `Q4` can mean several.
_COMPACT = re.compile(r"(?<![A-Z0-9])(I?Q)([1-8])(K|NL|XXS|XS|S|M)?(S|M|L|XL)?(?![A-Z0-9_]|\.[0-9])", re.IGNORECASE)
_ONLY_MEANING = {"Q8": "Q8_0", "Q6": "Q6_K"}

# `4.25bpw`, `TQ3_25bpw`; of what is named after its bits with a fraction the same: `1.25bit`, `MoQ-2.85`.
_BPW = re.compile(
    r"(?<![0-9._])([0-9]{1,2}(?:[._][0-9]+)?)[-_ ]?bpw"
    r"|(?<![0-9._])([0-9]{1,2}\.[0-9]+)-?bits?(?![a-z])|(?<![a-z])moq[-_]([0-9]{1,2}\.[0-9]+)",
    re.IGNORECASE,
)
# Mixes that are known by a publisher's names alone (LocalAI's APEX; `I`: with an importance matrix).
_NAMED_MIX = re.compile(
    r"(?<![A-Z0-9])APEX[-_](?:I[-_])?(?:QUALITY|BALANCED|COMPACT|MINI|NANO)(?![A-Z0-9])", re.IGNORECASE
)
_BITS = re.compile(r"([2-8])-?bits?((?:-(?:DWQ|AWQ|MXFP4|G[0-9]+|GS[0-9]+))*)(?:-[0-9]{6})?", re.IGNORECASE)
_OTHERS = ("mxfp8", "fp8", "fp4", "nf4", "int8", "int4")
_SHARD = re.compile(r"-([0-9]{5})-of-([0-9]{5})$")

# Heads for speculative decoding bear these words; `NAME-MTP-Q8_0.gguf` is a model that carries its head.
_DRAFTS = re.compile(r"^(?:mtp|eagle[0-9]?|dflash|medusa)[-_.]|(?<![a-z])draft(?:er)?(?![a-z])")
# A whole matrix, not a model made with one (`M.IQ4_XS.imatrix.gguf`, where the word stands behind the label; but
# nothing of 16 or 32 bits is made with one, so `M-Fp32.imatrix.gguf` is a matrix).
_IMATRIX = re.compile(r"imatrix|^imat[-_.]")
_STARTS_IMATRIX = re.compile(r"^imat(?:rix)?[-_.]")


def parse_quant(text: str) -> str | None:
    """The canonical label of `text`, or None where it is no quant. `i1-` (a publisher's imatrix mark) is dropped."""
    label = text.strip()
    if label.lower().startswith("i1-"):
        label = label[3:]
    return _gguf_label(label) or _other_label(label)


def quant_of_file(path: str) -> str | None:
    """The label a GGUF file bears in its name or, failing that, in its folder's; None where it bears none.

    The last label counts: `gpt-oss-20b-BF16-abliterated-Q2_K.gguf` is a Q2_K.
    """
    parts = PurePosixPath(path)
    for name in (_stem(path), parts.parent.name):
        if label := _label_within(name):
            return label.upper() if label in ("mxfp4", "nvfp4") else label
    return None


def kind_of_file(path: str) -> FileKind:
    """What a GGUF file is by its name. A header that says otherwise (`general.type`) is to be believed over this."""
    stem = _stem(path).lower()
    if "mmproj" in stem:
        return "mmproj"
    if _IMATRIX.search(stem) and (_STARTS_IMATRIX.match(stem) or not _is_made_with_imatrix(stem)):
        return "imatrix"
    if _DRAFTS.search(stem):
        return "draft"
    if stem.startswith("ggml-vocab"):
        return "vocab"
    if stem.startswith(("tokenizer-", "vocoder-")):
        return "audio"
    return "model"


def shard_of_file(path: str) -> tuple[str, int, int] | None:
    """What all shards of a set share, this one's number (from 1) and their count; None for a file that is no shard."""
    stem = _without_suffix(path)
    if match := _SHARD.search(stem):
        return stem[: match.start()], int(match[1]), int(match[2])
    return None


def split_quant(text: str) -> tuple[str, str | None]:
    """`text` without the quant that it ends in, and that quant: what is left of `SmolLM2-135M-Q8_0` is the name."""
    for cut in re.finditer(r"[-_. ]", text):
        head, tail = text[: cut.start()], text[cut.end() :]
        if head and (label := parse_quant(tail)):
            return head.removesuffix("i1").rstrip("-_. ") if head.endswith((".i1", "-i1")) else head, label
    return text, None


def same_quant(one: str, other: str) -> bool:
    """Whether two labels name the same quant: case does not count."""
    return (parse_quant(one) or one).casefold() == (parse_quant(other) or other).casefold()


def label_bits(label: str) -> float | None:
    """The bits per weight that a label promises at least (`Q4_K_M`: 4, `4.25bpw`: 4.25); None where it says nothing."""
    text = label.casefold()
    if text in _FLOATS.values():
        return 32.0 if text == "f32" else 16.0
    if match := _BPW.fullmatch(text):
        return float(_bpw_label(match).removesuffix("bpw"))
    if match := re.search(r"(?:q|fp|nf|int)([1-8])|^([2-8])bit", text):
        return float(match[1] or match[2])
    return None


def _is_made_with_imatrix(stem: str) -> bool:
    label = split_quant(stem.removesuffix("imatrix").rstrip("-_."))[1]
    return label is not None and label not in _FLOATS.values()


def _gguf_label(text: str) -> str | None:
    if match := _WHOLE_LABEL.fullmatch(text):
        label = match[2]
        if label.lower() in _FLOATS:
            return _FLOATS[label.lower()]
        # MLX and vLLM write mxfp4 and nvfp4 small; alone they may mean either, so the spelling is kept.
        label = label if label in ("mxfp4", "nvfp4") else label.upper()
        return f"UD-{label}" if match[1] else label
    if match := _COMPACT.fullmatch(text):
        return _expanded(match)
    return _mix_label(text) if _NAMED_MIX.fullmatch(text) else None


def _mix_label(text: str) -> str:
    return text.upper().replace("_", "-")


def _bpw_label(match: re.Match[str]) -> str:
    figure = next(group for group in match.groups() if group)
    return f"{float(figure.replace('_', '.'))}bpw"


def _expanded(match: re.Match[str]) -> str:
    label = "_".join(part.upper() for part in (match[1] + match[2], match[3], match[4]) if part)
    return _ONLY_MEANING.get(label, label)


def _other_label(text: str) -> str | None:
    if match := _BPW.fullmatch(text):
        return _bpw_label(match)
    if match := _BITS.fullmatch(text):
        return f"{match[1]}bit" + "".join(f"-{_bits_suffix(part)}" for part in match[2].split("-") if part)
    lower = text.lower()
    return next((label for label in _OTHERS if lower == label), None)


def _bits_suffix(text: str) -> str:
    return text.upper() if text.lower() in ("dwq", "awq") else text.lower()


def _label_within(name: str) -> str | None:
    """The last label in `name`, the full spellings before the compact ones, both before a figure in bpw."""
    whole = [label for match in _LABEL.finditer(name) if (label := _gguf_label(match.group()))]
    compact = list(_COMPACT.finditer(name))
    ends_compact = bool(compact) and compact[-1].end() == len(name)  # `mixed-bf16-q4km` is no bf16
    if whole and not (ends_compact and whole[-1] in _FLOATS.values()):
        return whole[-1]
    if glued := _GLUED_LABEL.search(name):
        return _gguf_label(glued.group())
    if compact:
        return _expanded(compact[-1])
    if figures := list(_BPW.finditer(name)):
        return _bpw_label(figures[-1])
    if mix := _NAMED_MIX.search(name):
        return _mix_label(mix.group())
    return next((label for label in _OTHERS if name.lower().endswith(f"-{label}")), None)


def _stem(path: str) -> str:
    return _SHARD.sub("", _without_suffix(PurePosixPath(path).name))


def _without_suffix(path: str) -> str:
    return path[: -len(".gguf")] if path.lower().endswith(".gguf") else path
