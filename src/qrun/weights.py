"""The bytes of a model's tensors, by the part of the model that they belong to.

Pure. Names of tensors are llama.cpp's (llama-arch.cpp); its loader keeps the input tensors in host RAM, layers and the
output head where they run.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

from qrun.ggml_types import type_name
from qrun.gguf_header import TensorInfo
from qrun.model import Weights

__all__ = ["layer_of", "weights_of"]

_LAYER = re.compile(r"blk\.(\d{1,4})\.")
# llama.cpp common.h, LLM_FFN_EXPS_REGEX: what --n-cpu-moe moves to the CPU.
_EXPERTS = re.compile(r"\.ffn_(up|down|gate|gate_up)_(ch|)exps")
# llama-arch.cpp, LLM_TENSOR_LAYER_INPUT
_EMBEDDINGS = "token_embd.weight"
_OTHER_INPUT = frozenset(
    {"token_embd_norm.weight", "token_embd_norm.bias", "token_types.weight"}
    | {"position_embd.weight", "per_layer_token_embd.weight"}
)
_OUTPUT = "output.weight"


def layer_of(name: str) -> int:
    """The layer that a tensor belongs to, -1 for those of no layer."""
    match = _LAYER.match(name)
    return int(match[1]) if match else -1


def weights_of(tensors: Sequence[TensorInfo], n_layer: int) -> Weights:
    """The tensors' bytes, of a model of `n_layer` layers."""
    layers, experts = [0] * n_layer, [0] * n_layer
    types: defaultdict[str, int] = defaultdict(int)
    embeddings = inputs = output = 0
    for tensor in tensors:
        size_bytes = tensor.size_bytes
        types[type_name(tensor.type_id)] += size_bytes
        layer = layer_of(tensor.name)
        if layer >= 0:
            layers[layer] += size_bytes
            experts[layer] += size_bytes if _EXPERTS.search(tensor.name) else 0
        elif tensor.name == _EMBEDDINGS:
            embeddings = size_bytes
        elif tensor.name in _OTHER_INPUT:
            inputs += size_bytes
        elif tensor.name == _OUTPUT:
            output = size_bytes
    return Weights(
        total_bytes=sum(tensor.size_bytes for tensor in tensors),
        n_params=sum(tensor.n_elements for tensor in tensors),
        token_embd_bytes=embeddings,
        output_bytes=output,
        layer_bytes=tuple(layers),
        expert_bytes=tuple(experts),
        type_bytes=tuple(sorted(types.items(), key=lambda item: (-item[1], item[0]))),
        other_input_bytes=inputs,
        largest_bytes=max((tensor.size_bytes for tensor in tensors if layer_of(tensor.name) >= 0), default=0),
    )
