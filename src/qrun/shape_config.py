"""A model's shape and parameters from the Hugging Face config.json of any copy of it.

Pure. The config is put into llama.cpp's terms, as its converter does, and then read as a GGUF header is: both ways give
the same ModelShape.
"""

from collections.abc import Mapping

from qrun.config_keys import Converted, converted
from qrun.config_tensors import tensors_of
from qrun.gguf_header import GgufHeader
from qrun.hf_config import HfConfig
from qrun.model import ModelShape
from qrun.shape import shape_of
from qrun.weights import layer_of
from qrun.weights_formula import Params, params_of

__all__ = ["params_of_config", "shape_of_config"]


def shape_of_config(config: Mapping[str, object]) -> ModelShape:
    """The shape of the model that `config` describes, its language part where it sees images too.

    Raises ShapeUnknown where the architecture is not known or a dimension is missing or impossible.
    """
    return shape_of([_header(config)])[0]


def params_of_config(config: Mapping[str, object]) -> Params:
    """The parameters of each part of that model: what `weights_by_formula` spreads a file's bytes over.

    Raises ShapeUnknown as `shape_of_config` does.
    """
    header = _header(config)
    n_layer = shape_of([header])[0].n_layer
    return params_of([tensor for tensor in header.tensors if layer_of(tensor.name) < n_layer], n_layer)


def _header(config: Mapping[str, object]) -> GgufHeader:
    made = converted(HfConfig(config))
    tensors = tensors_of(made)
    return GgufHeader(3, _metadata(made), tensors, 0, sum(tensor.size_bytes for tensor in tensors))


def _metadata(made: Converted) -> Mapping[str, object]:
    keys: dict[str, object] = {f"{made.architecture}.{key}": value for key, value in made.keys.items()}
    return {"general.architecture": made.architecture} | keys
