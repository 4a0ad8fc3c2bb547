"""How much a quantization loses: expected KL divergence against the full-precision model.

Pure. All figures are on one scale, that of source A of `data/quality.toml` (llama.cpp's table for Llama-3-8B), and are
interpolated in log(KLD) over bits per weight, so that more bits of one family never read as a greater loss. Where the
tensors are known they decide, not the label: their types give the family, the layers' bytes the bits per weight.
"""

import math
import re
import tomllib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from qrun.ggml_types import GGML_TYPES
from qrun.model import Candidate, ModelShape, Weights
from qrun.request import KvType

__all__ = ["KV_TYPE_KLD", "Curve", "Quality", "expected_quality", "interpolated", "plain_label"]

Curve = tuple[tuple[float, float], ...]  # (bits per weight, KLD), by bits
Family = Literal["k", "iq", "legacy"]

# What a quantized KV cache adds (DESIGN section 2 for q8_0). For q4_0 no figure was found: an estimate, ten times that.
KV_TYPE_KLD: Mapping[KvType, float] = {"f16": 0.0, "q8_0": 0.002, "q4_0": 0.02}

_ESTIMATE = "estimate"
# A file whose layers have these bits of its label's row, to one part in fifty, is what that row measured: models of
# other shapes get slightly other mixes from llama.cpp's rules.
_SAME_BPW = 0.02
# A quant without importance matrix against the same with one: the mean of A's six pairs below 5 bits per weight. From
# 5.5 bits up A measured without one only.
_NO_IMATRIX_FACTOR = 1.22
_IMATRIX_MATTERS_BELOW_BPW = 4.8
_IMATRIX_IS_EQUAL_FROM_BPW = 5.5
_WORST_KLD = 10.0  # beyond it a model says nothing; extrapolation ends here
_SHARED_TYPES = frozenset({"F64", "F32", "F16", "BF16", "Q8_0", "Q8_K", "Q6_K"})  # parts of mixes of every family
_BPW_OF_TYPE = {one.name: one.bpw for one in GGML_TYPES.values() if one.bpw}
_QAT = re.compile(r"(?:^|[-_./])qat(?:$|[-_./])", re.IGNORECASE)
_NATIVE_MXFP4 = frozenset({"gpt-oss"})  # trained in MXFP4: those tensors are the original


@dataclass(frozen=True, slots=True)
class Quality:
    """Mean KL divergence and where the figure is from ("estimate" where no measured row is near)."""

    kld: float
    source: str

    @property
    def is_estimate(self) -> bool:
        """Whether no measured row stands behind the figure."""
        return self.source.startswith(_ESTIMATE)


def expected_quality(candidate: Candidate) -> Quality:
    """The loss of `candidate` with an unquantized KV cache.

    GGUF by its tensors where they are known, else by its label; other formats by nominal bits, or by an estimate.
    """
    found = _gguf_quality(candidate) if candidate.format == "gguf" else _other_quality(candidate)
    if _is_qat(candidate.repo_id, candidate.files[0].path if candidate.files else None):
        found = _trained_for_4_bits(candidate, found)
    factor = _size_factor(candidate.weights) * _training_factor(candidate.shape, candidate.weights)
    return Quality(min(found.kld * factor, _WORST_KLD), found.source)


def interpolated(curve: Sequence[tuple[float, float]], bpw: float) -> float:
    """The KLD at `bpw`: a line in log(KLD), going on below the first point, ending at the last."""
    if bpw >= curve[-1][0]:
        return curve[-1][1]
    right = max(1, bisect_left(curve, (bpw,)))
    (left_bpw, left_kld), (right_bpw, right_kld) = curve[right - 1], curve[right]
    part = (bpw - left_bpw) / (right_bpw - left_bpw)
    return min(_WORST_KLD, math.exp(math.log(left_kld) + part * (math.log(right_kld) - math.log(left_kld))))


def plain_label(label: str) -> str:
    """The label of the layers' mix alone: `UD-` and `_L`/`_XL` say how embeddings and output are kept."""
    name = label.upper().removeprefix("UD-")
    if label.upper() == "Q3_K_XL":  # as bartowski makes it; Unsloth's is a mix of its own
        return "Q3_K_L"
    for suffix in ("_XXL", "_XL", "_L"):
        if name.endswith("K" + suffix) and name != "Q3_K_L":
            kept = name.removesuffix(suffix)
            return kept if kept in ("Q2_K", "Q6_K", "Q8_K") else f"{kept}_M"
    return {"BF16": "F16", "F32": "F16"}.get(name, name)


def _gguf_quality(candidate: Candidate) -> Quality:
    shape, weights = candidate.shape, candidate.weights
    family = (_family_of_types(weights) if weights else None) or _family_of_label(candidate.quant)
    has_imatrix = _has_imatrix(candidate, family)
    body_bpw = _body_bpw(shape, weights) if shape and weights else None
    if shape and weights and shape.architecture in _NATIVE_MXFP4 and (native := _native_mxfp4(weights)):
        return native
    if row := _row_of(candidate.quant, family, has_imatrix=has_imatrix, body_bpw=body_bpw):
        return row
    bpw = body_bpw or (weights.bpw if weights else None)
    if bpw is None:
        bpw = _bpw_of_label(candidate.quant)
    if bpw is None:
        return Quality(_WORST_KLD, _ESTIMATE)
    kld = interpolated(_curve(family, has_imatrix=has_imatrix), bpw)
    return Quality(kld, f"A, interpolated at {bpw:.2f} bits per weight of the layers")


def _row_of(quant: str, family: Family, *, has_imatrix: bool, body_bpw: float | None) -> Quality | None:
    """A's own row of that label, where the tensors do not contradict it."""
    name = plain_label(quant)
    for row in _data()["gguf"]:
        if row["quant"].upper() != name or (row["family"] not in (family, "shared", "float")):
            continue
        if body_bpw is not None and abs(body_bpw - row["body_bpw"]) > _SAME_BPW * row["body_bpw"]:
            continue
        if row["imatrix"] != has_imatrix and row["body_bpw"] < _IMATRIX_IS_EQUAL_FROM_BPW:
            continue
        return Quality(row["kld"], f"A: {row['quant']} of Llama-3-8B")
    return None


@cache
def _curve(family: Family, *, has_imatrix: bool) -> Curve:
    """A's rows of one family; where only the other kind of row was measured, it is put right by the mean difference.

    I-quants end at 4.6 bits: above them stand the K-quants' points. The legacy types begin at Q4_0: below it the loss
    grows as that of the K-quants does, from Q4_0's on.
    """
    points: dict[float, tuple[bool, float]] = {}
    rows = [row for row in _data()["gguf"] if row["family"] in (family, "shared", "float")]
    if family == "iq":
        rows += [row for row in _data()["gguf"] if row["quant"].startswith("Q5_K")]
    for row in rows:
        exact, bpw = row["imatrix"] == has_imatrix, row["body_bpw"]
        kld = row["kld"] if exact else row["kld"] * _imatrix_factor(bpw) ** (1 if row["imatrix"] else -1)
        if bpw not in points or exact:
            points[bpw] = (exact, kld)
    made = _falling([(bpw, kld) for bpw, (_, kld) in sorted(points.items())])
    return _with_tail(made, _curve("k", has_imatrix=has_imatrix)) if family == "legacy" else made


def _with_tail(curve: Curve, of: Curve) -> Curve:
    """The curve led on below its first point by the points of another, all raised by the one factor that meets it."""
    first_bpw, first_kld = curve[0]
    factor = first_kld / interpolated(of, first_bpw)
    return (*((bpw, kld * factor) for bpw, kld in of if bpw < first_bpw), *curve)


def _falling(points: Sequence[tuple[float, float]]) -> Curve:
    """The points without a rise in KLD from fewer bits to more, which could only be noise of the measurement."""
    kept: list[tuple[float, float]] = []
    for bpw, kld in points:
        kept.append((bpw, min(kld, kept[-1][1]) if kept else kld))
    return tuple(kept)


def _imatrix_factor(bpw: float) -> float:
    if bpw <= _IMATRIX_MATTERS_BELOW_BPW:
        return _NO_IMATRIX_FACTOR
    if bpw >= _IMATRIX_IS_EQUAL_FROM_BPW:
        return 1.0
    part = (bpw - _IMATRIX_MATTERS_BELOW_BPW) / (_IMATRIX_IS_EQUAL_FROM_BPW - _IMATRIX_MATTERS_BELOW_BPW)
    return float(_NO_IMATRIX_FACTOR ** (1 - part))


def _has_imatrix(candidate: Candidate, family: Family) -> bool:
    if candidate.has_imatrix is not None:
        return candidate.has_imatrix
    # llama-quantize refuses the smaller I-quants without a matrix, and nobody publishes the others without one.
    return family == "iq" or candidate.publisher in _data()["imatrix"]["publishers"]


def _family_of_types(weights: Weights) -> Family | None:
    """The family that most bytes belong to, those that are part of every mix not counted; None: only such."""
    sums: dict[Family, int] = {"k": 0, "iq": 0, "legacy": 0}
    for name, size_bytes in weights.type_bytes:
        if name not in _SHARED_TYPES:
            sums[_family_of_label(name)] += size_bytes
    most = max(sums, key=lambda family: sums[family])
    return most if sums[most] else None


def _family_of_label(label: str) -> Family:
    name = plain_label(label)
    if name.startswith(("IQ", "TQ")):
        return "iq"
    if "_K" in name or name in _SHARED_TYPES:
        return "k"
    # MXFP4 and NVFP4 made from a wider model: 4-bit blocks with one scale, nearest to Q4_0.
    return "legacy"


def _bpw_of_label(label: str) -> float | None:
    """The nominal bits of a label without a row: those of the type that it names."""
    name = plain_label(label)
    shortened = name.rpartition("_")[0]
    return _BPW_OF_TYPE.get(name) or _BPW_OF_TYPE.get(shortened)


def _body_bpw(shape: ModelShape, weights: Weights) -> float | None:
    """Bits per weight of the repeated layers alone; None where the parameters outside them are not known."""
    outside = shape.n_vocab * shape.n_embd * (1 if weights.tied else 2)
    if weights.other_input_bytes or weights.n_params <= outside or not sum(weights.layer_bytes):
        return None
    return 8 * sum(weights.layer_bytes) / (weights.n_params - outside)


def _native_mxfp4(weights: Weights) -> Quality | None:
    """The loss of a model trained in MXFP4: its own tensors lose nothing, the rest what their bits say."""
    native = dict(weights.type_bytes).get("MXFP4", 0)
    native_params = native * 8 / _BPW_OF_TYPE["MXFP4"]
    rest_params = weights.n_params - native_params
    if 2 * native_params < weights.n_params or rest_params <= 0:
        return None
    rest_bpw = 8 * (weights.total_bytes - native) / rest_params
    floor = _curve("k", has_imatrix=False)[-1][1]
    lost = interpolated(_curve("k", has_imatrix=False), rest_bpw) * rest_params / weights.n_params
    return Quality(max(floor, lost), _ESTIMATE)


def _other_quality(candidate: Candidate) -> Quality:
    """Formats other than GGUF: EXL2 and EXL3 by B's curves on A's scale, the rest by what is known of them."""
    estimates: Mapping[str, float] = _data()["estimate"]
    quant = candidate.quant.lower()
    bits = _leading_number(quant)
    if candidate.format in ("exl2", "exl3") and bits is not None:
        return Quality(interpolated(_exl_curve(candidate.format), bits), f"B on A's scale, at {bits:g} bits per weight")
    if quant in ("bf16", "f16", "f32"):
        return Quality(_curve("k", has_imatrix=False)[-1][1], "A: f16 of Llama-3-8B")
    for name in (quant, candidate.format):
        if name in estimates and bits in (None, 4.0):
            return Quality(estimates[name], _ESTIMATE)
    if bits is None:
        return Quality(_WORST_KLD, _ESTIMATE)
    # MLX, and AWQ or GPTQ of other widths: a scale and a bias for each group of 64 are half a bit more (quality.tsv),
    # as in ggml's legacy types.
    kld = interpolated(_curve("legacy", has_imatrix=False), bits + 0.5)
    return Quality(kld * (2 / 3 if "dwq" in quant else 1), _ESTIMATE)  # DWQ loses about a third less (quality.tsv)


def _leading_number(text: str) -> float | None:
    digits = text.split("bit", maxsplit=1)[0].split("bpw", maxsplit=1)[0].rstrip("-_ ")
    try:
        return float(digits)
    except ValueError:
        return None


@cache
def _exl_curve(name: str) -> Curve:
    """B's points on A's scale: log(A) is a line over log(B) through the quants that both measured."""
    shared, table = _data()["shared"], _data()[name]
    logs_a, logs_b = ([math.log(kld) for kld in shared[source]] for source in ("A", "B"))
    mean_a, mean_b = sum(logs_a) / len(logs_a), sum(logs_b) / len(logs_b)
    spread = sum((b - mean_b) ** 2 for b in logs_b)
    slope = sum((a - mean_a) * (b - mean_b) for a, b in zip(logs_a, logs_b, strict=True)) / spread
    on_a = [math.exp(mean_a + slope * (math.log(kld) - mean_b)) for kld in table["kld"]]
    return _falling(list(zip(table["bpw"], on_a, strict=True)))


def _size_factor(weights: Weights | None) -> float:
    """How much more than an 8B model one of this size loses; 1 where the size is not known."""
    if weights is None:
        return 1.0
    (small, large), (most, least) = _data()["size"]["n_params"], _data()["size"]["factor"]
    part = (math.log(weights.n_params) - math.log(small)) / (math.log(large) - math.log(small))
    return float(most + min(1.0, max(0.0, part)) * (least - most))


def _training_factor(shape: ModelShape | None, weights: Weights | None) -> float:
    """How much less a model loses that had few tokens a parameter in its training; 1 where that is not known."""
    rule = _data()["few_tokens"]
    if shape is None or weights is None or shape.architecture not in rule["architectures"]:
        return 1.0
    few = shape.n_vocab <= rule["n_vocab"] and rule["n_params"][0] <= weights.n_params <= rule["n_params"][1]
    return float(rule["factor"]) if few else 1.0


def _is_qat(*names: str | None) -> bool:
    """Whether a repo or file calls itself one of weights that were trained for 4 bits."""
    return any(_QAT.search(name) for name in names if name)


def _trained_for_4_bits(candidate: Candidate, found: Quality) -> Quality:
    """The loss of a quant of such weights against the base they were made from.

    In the 4 bits that they were trained for they lose less than the table says. In any other they come no nearer to
    the base than in those, for they are not the base's weights; where they themselves are the model asked for, others
    lose what the table says.
    """
    rule = _data()["qat"]
    if _is_4_bit_block(candidate):
        return Quality(found.kld * rule["factor"], f"{found.source}; trained for 4 bits (QAT)")
    at_best = interpolated(_curve("legacy", has_imatrix=False), rule["bpw"]) * rule["factor"]
    if _is_qat(candidate.base_model) or found.kld >= at_best:
        return found
    return Quality(at_best, f"{_ESTIMATE}: QAT weights are no nearer to the base than their Q4_0")


def _is_4_bit_block(candidate: Candidate) -> bool:
    if candidate.format == "gguf":
        return plain_label(candidate.quant) in ("Q4_0", "Q4_1")
    return candidate.format == "mlx" and _leading_number(candidate.quant.lower()) == 4.0  # noqa: PLR2004  # 4 bits


@cache
def _data() -> Mapping[str, Any]:
    return tomllib.loads((files("qrun") / "data" / "quality.toml").read_text(encoding="utf-8"))
