"""The bytes of a model's parts from a file's size, its label and the model's parameters, where no header was read.

Pure. What label and format say of embeddings and output head is taken off the file's bytes; the layers share the rest
by their parameters.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from operator import add

from qrun.gguf_header import TensorInfo
from qrun.label_types import BPW, LabelTypes, attention_types, bracket, fitting_row, head_type, label_types
from qrun.model import Format, ModelShape, Weights
from qrun.quant import label_bits
from qrun.weights import weights_of

__all__ = ["Params", "contradicts_label", "params_of", "params_of_shape", "weights_by_formula"]

_ALWAYS_TIED = frozenset({"gemma", "gemma2", "gemma3", "gemma3n", "gemma4", "command-r", "cohere2"})
_NATIVE_MXFP4 = frozenset({"gpt-oss"})  # its experts stay MXFP4 whatever the label says
_F32_BYTES = 4
# A GGUF file holds its vocabulary too: 36 to 61 bytes a token in the models looked at, of 49k to 262k tokens.
_GGUF_BYTES_A_TOKEN = 45
# Where the parts outside the layers would leave them less than this part of the mean bits, the label is no guide.
_LEAST_BODY_PART = 0.5
# What lies beside experts: at most so many times the bits of the experts, and of a layer with MXFP4 experts at most so
# many times Q8_0's (or the label's).
_MOST_FOR_ATTENTION = 4.0
_SLACK = 1.1
_WIDER_MATTERS = 0.02  # a part of the layers' weights, from which the largest tensor is one of the wider ones
# A file that holds less than this part of the bits its label promises is not what it says. Honest files stay above:
# a Q8_0 with a few Q6_K tensors, or llama.cpp's fallbacks, which only ever take more.
_LEAST_PART = 0.75
# A label of 8 bits or fewer over weights that are in truth 16 or 32 bits wide. Unsloth's UD-Q8_K_XL, with some tensors
# in BF16, reaches 12.
_MOST_QUANTIZED_BPW = 14.0
_LABEL_BITS_OF_QUANTS = 8


_LEFT_IN_F32 = re.compile(r"ffn_gate_inp|ssm_(?:conv1d|a$|d$|dt)|shortconv\.conv|\.bias$|_norm\.|altup|laurel")


@dataclass(frozen=True, slots=True)
class Params:
    """How many weights each part of a model has. `experts` are the routed experts' part of `layers`."""

    token_embd: int
    output: int  # 0 where the embeddings serve
    layers: tuple[int, ...]
    experts: tuple[int, ...]
    rest: int = 0  # the final norm and the like
    other_input: int = 0
    largest: int = 0  # of a single tensor of any layer
    vectors: tuple[int, ...] = ()  # the part of each layer that GGUFs keep in F32: norms, biases, routers

    @property
    def total(self) -> int:
        """All weights: the published parameter count."""
        return self.token_embd + self.output + sum(self.layers) + self.rest + self.other_input


def params_of(tensors: Sequence[TensorInfo], n_layer: int) -> Params:
    """The parameters of a model of these tensors, whatever their types."""
    counts = [replace(tensor, size_bytes=tensor.n_elements) for tensor in tensors]
    counted = weights_of(counts, n_layer)
    outside = counted.token_embd_bytes + counted.output_bytes + counted.other_input_bytes
    return Params(
        token_embd=counted.token_embd_bytes,
        output=counted.output_bytes,
        layers=counted.layer_bytes,
        experts=counted.expert_bytes,
        rest=counted.n_params - outside - sum(counted.layer_bytes),
        other_input=counted.other_input_bytes,
        largest=counted.largest_bytes,
        vectors=weights_of([tensor for tensor in counts if _is_vector(tensor)], n_layer).layer_bytes,
    )


def _is_vector(tensor: TensorInfo) -> bool:
    """Whether llama.cpp leaves a tensor of a layer in F32 (llama-quant.cpp, tensor_allows_quantization)."""
    return len(tensor.dims) == 1 or _LEFT_IN_F32.search(tensor.name) is not None


def params_of_shape(shape: ModelShape, *, tied: bool) -> Params:
    """The parameters as far as a shape tells them: attention with separate keys and values, a gated feed-forward.

    Too few for MLA, for recurrent layers and for shared experts: `params_of_config` knows those.
    """
    experts = 3 * shape.n_expert * shape.n_embd * shape.n_ff_exp
    routed = shape.n_expert * shape.n_embd
    dense = 3 * shape.n_embd * shape.n_ff
    per_layer = experts + routed if shape.n_expert else dense
    attention = [
        shape.n_embd * (shape.n_head + layer.n_head_kv) * (layer.head_dim_k + layer.head_dim_v)
        for layer in shape.layers
    ]
    table = shape.n_vocab * shape.n_embd
    return Params(
        token_embd=table,
        output=0 if tied else table,
        layers=tuple(one + per_layer + 2 * shape.n_embd for one in attention),
        experts=(experts,) * shape.n_layer,
        rest=shape.n_embd,
        largest=experts // 3 or dense // 3,
        vectors=(routed + 2 * shape.n_embd,) * shape.n_layer,
    )


def weights_by_formula(
    shape: ModelShape,
    *,
    format: Format,  # noqa: A002  # the contract's word (DESIGN section 2)
    quant: str,
    size_bytes: int,
    tied: bool | None = None,
    params: Params | None = None,
) -> Weights:
    """The weights of files of `size_bytes` that bear the label `quant`: in all as large as the files.

    `params` of the model, from its config.json or any header of it; without them those that the shape tells. `tied`
    None: as the parameters say.
    """
    if params is None:
        params = params_of_shape(shape, tied=shape.architecture in _ALWAYS_TIED if tied is None else tied)
    elif tied:
        params = replace(params, output=0)
    types = label_types(format, quant)
    split = _Split(shape, params, types, size_bytes)
    if types.plain and split.body_bpw() < BPW[types.layers]:
        split = _Split(shape, params, types.plain, size_bytes)
    return split.weights()


def contradicts_label(weights: Weights, quant: str) -> str | None:
    """Where a label and the bits per weight are grossly at odds, in words; None: they may well be one.

    gpt-oss is excepted: its quants are labelled by their few other tensors, while the experts stay MXFP4.
    """
    bits = label_bits(quant)
    if bits is None or not weights.n_params or weights.type_bytes[0][0] == "MXFP4":
        return None
    too_narrow = weights.bpw < _LEAST_PART * bits
    too_wide = bits <= _LABEL_BITS_OF_QUANTS and weights.bpw > _MOST_QUANTIZED_BPW
    if not (too_narrow or too_wide):
        return None
    return f"named {quant}, but its tensors have {weights.bpw:.1f} bits per weight"


class _Split:
    """One file's bytes, spread over the model's parts."""

    def __init__(self, shape: ModelShape, params: Params, types: LabelTypes, size_bytes: int) -> None:
        self._shape, self._params, self._types, self._size_bytes = shape, params, types, size_bytes
        self._mean_bpw = 8 * size_bytes / params.total
        self._by_type: Counter[str] = Counter()
        self._largest_bytes = 0

    def body_bpw(self) -> float:
        """The bits per weight that the label's embeddings and output head leave the layers."""
        outside = sum(self._bytes(*one) for one in self._named())
        return 8 * (self._size_bytes - outside - self._rest()) / sum(self._params.layers)

    def weights(self) -> Weights:
        """The whole, with every part."""
        params = self._params
        embeddings, output, other, rest = self._outside()
        body = self._size_bytes - embeddings - output - other - rest
        experts = self._experts(body)
        expert_bytes = _shared(experts, params.experts)
        other_bytes = self._beside_experts(body - experts, largest=0 if experts else params.largest)
        return Weights(
            total_bytes=self._size_bytes,
            n_params=params.total,
            token_embd_bytes=embeddings,
            output_bytes=output,
            layer_bytes=tuple(map(add, expert_bytes, other_bytes)),
            expert_bytes=expert_bytes,
            type_bytes=tuple(sorted((+self._by_type).items(), key=lambda item: (-item[1], item[0]))),
            other_input_bytes=other,
            largest_bytes=self._largest_bytes,
            estimated=True,
        )

    def _named(self) -> list[tuple[int, str | None]]:
        """Weights and type of embeddings, output head and further input tables."""
        params, types = self._params, self._types
        head = head_type(types, self._shape.n_embd)
        serves_as_head = not params.output and types.in_gguf
        table = head if serves_as_head else fitting_row(types.embeddings, self._shape.n_embd)
        return [(params.token_embd, table), (params.output, head), (params.other_input, table)]

    def _rest(self) -> int:
        """The bytes of what is no matrix: the last norm, and a GGUF's vocabulary."""
        return _F32_BYTES * self._params.rest + _GGUF_BYTES_A_TOKEN * self._shape.n_vocab * self._types.in_gguf

    def _outside(self) -> tuple[int, int, int, int]:
        """The bytes outside the layers: embeddings, output head, further input tables, the rest."""
        named, rest = self._named(), self._rest()
        if self.body_bpw() < _LEAST_BODY_PART * self._mean_bpw:
            named = [(count, None) for count, _ in named]
            rest = self._bytes(self._params.rest, None)
        sizes = [self._bytes(*one) for one in named]
        for size_bytes, (_, type_) in zip(sizes, named, strict=True):
            self._by_type[type_ or self._types.layers] += size_bytes
        self._by_type["F32"] += rest
        return sizes[0], sizes[1], sizes[2], rest

    def _bytes(self, count: int, type_: str | None) -> int:
        bpw = BPW.get(type_, self._mean_bpw) if type_ else self._mean_bpw
        return int(count * bpw) // 8

    def _experts(self, body: int) -> int:
        """The routed experts' bytes: of a type of their own, or what the rest of the layers leaves."""
        params, count = self._params, sum(self._params.experts)
        if not count:
            return 0
        if (own := self._own_type_of_experts(body)) is not None:
            size_bytes = int(count * BPW[own]) // 8
            self._by_type[own] += size_bytes
            self._largest_bytes = int(params.largest * BPW[own]) // 8
            return size_bytes
        even = body * count // sum(params.layers)
        size_bytes = max(0, body - self._attention_bytes(body - even))
        self._mix(size_bytes, count, params.largest)
        return size_bytes

    def _own_type_of_experts(self, body: int) -> str | None:
        """MXFP4 where label or architecture say so, and the rest of the layers has not too many bits for that."""
        native = self._shape.architecture in _NATIVE_MXFP4
        own = self._types.experts or ("MXFP4" if native and self._types.in_gguf else None)
        if own is None:
            return None
        others = sum(self._params.layers) - sum(self._params.experts)
        left = body - int(sum(self._params.experts) * BPW[own]) // 8
        most = _SLACK * max(BPW["Q8_0"], BPW.get(self._types.layers, 0.0))
        return own if 0 < 8 * left < most * others else None

    def _attention_bytes(self, even: int) -> int:
        """What lies beside the experts, at the label's types; `even`: what it would be with the experts' bits."""
        params, shape = self._params, self._shape
        named = attention_types(self._types, shape.n_expert)
        if named is None or not all(one in BPW for one in named):
            return even
        n_kv = max(layer.n_head_kv for layer in shape.layers)
        queries, keys, values, output = (BPW[fitting_row(one, shape.n_embd) or one] for one in named)
        bpw = (shape.n_head * (queries + output) + n_kv * (keys + values)) / (2 * shape.n_head + 2 * n_kv)
        vectors = sum(params.vectors)
        matrices = sum(params.layers) - sum(params.experts) - vectors
        wanted = int(matrices * bpw) // 8 + _F32_BYTES * vectors
        return min(wanted, int(_MOST_FOR_ATTENTION * even))

    def _beside_experts(self, size_bytes: int, *, largest: int) -> tuple[int, ...]:
        """Each layer's bytes without its experts."""
        params = self._params
        counts = [layer - expert for layer, expert in zip(params.layers, params.experts, strict=True)]
        vectors = _F32_BYTES * sum(params.vectors) if self._types.in_gguf else 0
        if vectors < size_bytes // 2:
            self._by_type["F32"] += vectors
            self._mix(size_bytes - vectors, sum(counts) - vectors // _F32_BYTES, largest)
        else:
            self._mix(size_bytes, sum(counts), largest)
        return _shared(size_bytes, counts)

    def _mix(self, size_bytes: int, count: int, largest: int) -> None:
        """Count `size_bytes` for `count` weights to the label's types, so that their bits come out right."""
        if count <= 0:
            return
        bpw = 8 * size_bytes / count
        main, wider = bracket(self._types, self._shape.n_embd, bpw)
        part = _part_of_wider(bpw, main, wider)
        wider_bytes = int(part * count * BPW[wider]) // 8 if wider else 0
        self._by_type[main] += size_bytes - wider_bytes
        if wider:
            self._by_type[wider] += wider_bytes
        if largest:
            self._largest_bytes = int(largest * (BPW[wider] if wider and part > _WIDER_MATTERS else bpw)) // 8


def _part_of_wider(bpw: float, main: str, wider: str | None) -> float:
    if wider is None or BPW[wider] <= BPW[main]:
        return 0.0
    return min(1.0, max(0.0, (bpw - BPW[main]) / (BPW[wider] - BPW[main])))


def _shared(size_bytes: int, counts: Sequence[int]) -> tuple[int, ...]:
    """`size_bytes` shared out by `counts`, whole bytes that add up to it."""
    total = sum(counts)
    if not total:
        return (0,) * len(counts)
    ends = [size_bytes * end // total for end in accumulate(counts)]
    return tuple(end - start for start, end in pairwise([0, *ends]))
