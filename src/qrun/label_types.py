"""The tensor types that a label stands for: embeddings, output head, and the mix of the layers.

Pure data. Source for GGUF: llama.cpp's llama-quant.cpp (llama_tensor_get_type_impl and tensor_type_fallback); for the
others their quantizers' defaults: EXL2 and EXL3 keep embeddings in 16 bits and the head in 6, AWQ, GPTQ, FP8 and
bitsandbytes keep both in 16, MLX quantizes both like the layers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from qrun.ggml_types import GGML_TYPES
from qrun.model import Format

__all__ = ["BPW", "LabelTypes", "attention_types", "bracket", "fitting_row", "head_type", "label_types"]

_EXL_HEAD = "6bpw"
# Bits per weight by type.
BPW: Mapping[str, float] = {one.name: one.bpw for one in GGML_TYPES.values() if one.bpw} | {_EXL_HEAD: 6.0}


@dataclass(frozen=True, slots=True)
class LabelTypes:
    """Types by part; None: not told by the label, so as wide as the file is on the average.

    `layers` is the main one; `wider`, what the more sensitive tensors get. `experts`: where routed experts differ.
    """

    layers: str
    wider: str | None = None
    embeddings: str | None = None
    output: str | None = None
    experts: str | None = None
    in_gguf: bool = False
    attention: tuple[str, str, str] | None = None  # of queries and keys, values, output; None: as the layers
    plain: "LabelTypes | None" = None  # what publishers mean by the label otherwise, where this leaves too few bits


def label_types(format: Format, quant: str) -> LabelTypes:  # noqa: A002  # the contract's word (DESIGN section 2)
    """The types that `quant` means in `format`. A label that is not known is its own type."""
    if format == "gguf":
        return _gguf_types(quant)
    name = _FLOATS.get(quant.casefold(), quant)
    if format == "safetensors" and quant == "unknown":  # no dtype in its config: unquantized, whatever it is
        name = "F16"
    if format in ("exl2", "exl3"):
        return LabelTypes(name, embeddings="F16", output=_EXL_HEAD)
    if format in ("awq", "gptq", "fp8", "bnb"):
        return LabelTypes(name, embeddings="BF16", output="BF16")
    return LabelTypes(name)


def head_type(types: LabelTypes, row: int) -> str | None:
    """The type of the output head, or of embeddings that serve as one: Q8_0 where the label's own blocks do not fit."""
    if types.in_gguf and row % _BLOCK.get(types.layers, 1):
        return "Q8_0"
    return fitting_row(types.output, row)


def fitting_row(type_: str | None, row: int) -> str | None:
    """The type that a row of that length gets in a GGUF: one in smaller blocks where its own do not divide it."""
    if type_ is None or type_ not in _BLOCK or row % _BLOCK[type_] == 0:
        return type_
    fallback = _FALLBACK.get(type_, "IQ4_NL")
    return fallback if row % _SMALL_BLOCK == 0 else "F16"


def bracket(types: LabelTypes, row: int, bpw: float) -> tuple[str, str | None]:
    """The two types that layers of `bpw` bits are mixed of, the narrower first: the label's, or neighbours of them.

    `row`: the width of most rows; those that blocks of 256 do not divide have another type. The second is None where
    one type alone comes next.
    """
    main, wider = types.layers, types.wider
    if not types.in_gguf or main not in BPW:
        return main, None
    fitted = fitting_row(main, row) or main
    if fitted != main:
        main, wider = sorted((main, fitted), key=lambda one: BPW[one])
    ladder = _ladder_of(main)
    if bpw < _BELOW * BPW[main]:
        lower = [one for one in ladder if BPW[one] <= bpw]
        return (lower[-1], main) if lower else (main, None)
    if wider is None or bpw <= BPW[main]:
        return main, None
    if bpw > BPW[wider]:
        return wider, next((one for one in ladder if BPW[one] >= bpw), None)
    return main, wider


def attention_types(types: LabelTypes, n_expert: int) -> tuple[str, str, str, str] | None:
    """Of a model with experts: the types of queries, keys, values and attention's output; None: not known.

    Eight experts (Mixtral) are a case of llama.cpp's own: keys and values are small beside them.
    """
    if types.attention is None:
        return None
    queries, values, output = types.attention
    if n_expert != _MIXTRAL_EXPERTS:
        return queries, queries, values, output
    small = "Q4_K" if types.layers.startswith(("IQ1", "IQ2")) else "Q8_0"
    small = max(small, types.layers, key=lambda one: BPW[one])
    return queries, small, small, max("Q5_K", output, key=lambda one: BPW[one])


# Label -> main type, wider type of the layers; type of embeddings with an output head beside them; of the head.
_MIXES: Mapping[str, tuple[str, str, str, str]] = {
    "Q2_K": ("Q2_K", "Q3_K", "Q2_K", "Q6_K"),
    "Q2_K_S": ("Q2_K", "Q4_K", "Q2_K", "Q6_K"),
    "Q3_K_S": ("Q3_K", "Q4_K", "Q3_K", "Q6_K"),
    "Q3_K_M": ("Q3_K", "Q4_K", "Q3_K", "Q6_K"),
    "Q3_K_L": ("Q3_K", "Q5_K", "Q3_K", "Q6_K"),
    "Q4_K_S": ("Q4_K", "Q5_K", "Q4_K", "Q6_K"),
    "Q4_K_M": ("Q4_K", "Q6_K", "Q4_K", "Q6_K"),
    "Q5_K_S": ("Q5_K", "Q6_K", "Q5_K", "Q6_K"),
    "Q5_K_M": ("Q5_K", "Q6_K", "Q5_K", "Q6_K"),
    "Q6_K": ("Q6_K", "Q8_0", "Q6_K", "Q6_K"),
    "Q8_0": ("Q8_0", "F16", "Q8_0", "Q8_0"),
    "Q4_0": ("Q4_0", "Q4_1", "Q4_0", "Q6_K"),
    "Q4_1": ("Q4_1", "Q5_1", "Q4_1", "Q6_K"),
    "Q5_0": ("Q5_0", "Q5_1", "Q5_0", "Q6_K"),
    "Q5_1": ("Q5_1", "Q6_K", "Q5_1", "Q6_K"),
    "IQ1_S": ("IQ1_S", "IQ2_XXS", "Q2_K", "Q5_K"),
    "IQ1_M": ("IQ1_M", "IQ2_XXS", "Q2_K", "Q5_K"),
    "IQ2_XXS": ("IQ2_XXS", "IQ3_S", "Q2_K", "Q5_K"),
    "IQ2_XS": ("IQ2_XS", "IQ3_S", "Q2_K", "Q5_K"),
    "IQ2_S": ("IQ2_XS", "IQ3_S", "IQ3_S", "Q5_K"),
    "IQ2_M": ("IQ2_S", "IQ3_S", "IQ3_S", "Q5_K"),
    "IQ3_XXS": ("IQ3_XXS", "IQ3_S", "IQ3_S", "Q5_K"),
    "IQ3_XS": ("IQ3_XXS", "IQ3_S", "IQ3_S", "Q6_K"),
    "IQ3_S": ("IQ3_S", "Q4_K", "IQ3_S", "Q6_K"),
    "IQ3_M": ("IQ3_S", "Q4_K", "IQ3_S", "Q6_K"),
    "IQ4_XS": ("IQ4_XS", "Q5_K", "IQ4_XS", "Q6_K"),
    "IQ4_NL": ("IQ4_NL", "Q5_K", "IQ4_NL", "Q6_K"),
    "TQ1_0": ("TQ1_0", "TQ2_0", "Q4_K", "Q6_K"),
    "TQ2_0": ("TQ2_0", "Q2_K", "Q4_K", "Q6_K"),
    "MXFP4": ("Q8_0", "F16", "Q8_0", "Q8_0"),
    "MXFP4_MOE": ("Q8_0", "F16", "Q8_0", "Q8_0"),
    "F16": ("F16", "F32", "F16", "F16"),
    "BF16": ("BF16", "F32", "BF16", "BF16"),
    "F32": ("F32", "F32", "F32", "F32"),
}
# Of models with experts, whose attention is a small part of the layers and gets more bits: queries and keys, values,
# output. Values as with four or more heads to a key; all else as the layers.
_ATTENTION: Mapping[str, tuple[str, str, str]] = {
    "Q2_K": ("Q2_K", "Q4_K", "Q3_K"),
    "Q2_K_S": ("Q2_K", "Q4_K", "Q2_K"),
    "Q3_K_S": ("Q3_K", "Q3_K", "Q3_K"),
    "Q3_K_M": ("Q3_K", "Q4_K", "Q4_K"),
    "Q3_K_L": ("Q3_K", "Q5_K", "Q5_K"),
    "Q4_K_S": ("Q4_K", "Q4_K", "Q4_K"),
    "Q4_K_M": ("Q4_K", "Q5_K", "Q4_K"),
    "Q5_K_S": ("Q5_K", "Q5_K", "Q5_K"),
    "Q5_K_M": ("Q5_K", "Q6_K", "Q5_K"),
    "IQ1_S": ("IQ1_S", "Q4_K", "IQ2_XXS"),
    "IQ1_M": ("IQ1_M", "Q4_K", "IQ2_XXS"),
    "IQ2_XXS": ("IQ2_XXS", "Q4_K", "IQ2_XXS"),
    "IQ2_XS": ("IQ2_XS", "Q4_K", "IQ2_XS"),
    "IQ2_S": ("IQ2_XS", "Q4_K", "IQ3_S"),
    "IQ2_M": ("IQ2_S", "Q4_K", "IQ3_S"),
    "IQ3_XXS": ("IQ2_S", "Q4_K", "IQ3_S"),
    "IQ3_XS": ("IQ3_XXS", "Q4_K", "IQ3_S"),
    "IQ3_S": ("IQ3_S", "Q4_K", "IQ3_S"),
    "IQ3_M": ("IQ3_S", "Q4_K", "Q4_K"),
    "IQ4_XS": ("IQ4_XS", "Q5_K", "IQ4_XS"),
    "IQ4_NL": ("IQ4_NL", "Q5_K", "IQ4_NL"),
}
_MIXTRAL_EXPERTS = 8
_WIDE = ("Q5_K", "Q6_K", "Q8_0", "F16", "F32")
_K_LADDER = ("Q2_K", "Q3_K", "Q4_K", *_WIDE)
_IQ_LADDER = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS", "IQ4_NL", *_WIDE)
_LEGACY_LADDER = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", *_WIDE[1:])
_BELOW = 0.98  # how much fewer bits than its main type a label's layers may have before another type is thought of
_BLOCK: Mapping[str, int] = {one.name: one.block_size for one in GGML_TYPES.values() if one.block_size}
_SMALL_BLOCK = 32
_FALLBACK: Mapping[str, str] = {
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
    "TQ1_0": "Q4_0",
    "TQ2_0": "Q4_0",
}
_FLOATS: Mapping[str, str] = {"bf16": "BF16", "f16": "F16", "f32": "F32"}
# bartowski's `_L` and `_XL` are the plain mix with embeddings and output in Q8_0; Unsloth's `Q2_K_L` has narrower ones,
# and its `UD-..._XL` are mixes of their own.
_LARGE = re.compile(r"(Q[2-8]_K|IQ[1-4])(?:_X{0,2}L)")
_ALIASES: Mapping[str, str] = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}  # llama-quantize's own
_PLAIN: Mapping[str, str] = {
    "Q2_K": "Q2_K",
    "Q3_K": "Q3_K_L",
    "Q4_K": "Q4_K_M",
    "Q5_K": "Q5_K_M",
    "Q6_K": "Q6_K",
    "Q8_K": "Q8_0",
}


def _ladder_of(type_: str) -> tuple[str, ...]:
    if type_.startswith(("IQ", "TQ")):
        return _IQ_LADDER
    return _LEGACY_LADDER if type_ in _LEGACY_LADDER and type_ not in _WIDE else _K_LADDER


def _gguf_types(quant: str) -> LabelTypes:
    label = quant.upper().removeprefix("UD-")
    large = None if label in _MIXES else _LARGE.fullmatch(label)
    name = _PLAIN.get(large[1], label) if large else _ALIASES.get(label, label)
    if name not in _MIXES:
        return LabelTypes(label, in_gguf=True)
    main, wider, embeddings, output = _MIXES[name]
    plain = LabelTypes(
        layers=main,
        wider=wider,
        embeddings=embeddings,
        output=output,
        experts="MXFP4" if name.startswith("MXFP4") else None,
        in_gguf=True,
        attention=_ATTENTION.get(name, (main, main, main)),
    )
    if not large or quant.upper().startswith("UD-"):
        return plain
    return replace(plain, embeddings="Q8_0", output="Q8_0", plain=plain)
