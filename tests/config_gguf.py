"""GGUF files of the models in data/configs without their weights: headers that llama.cpp loads, then a hole.

`sparse_gguf` writes headers from dimensions given there; here they come from a config.json by qrun's own conversion.
What its list of tensors leaves out, because it is next to no bytes, is added so that the engine takes the file.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from gguf import GGMLQuantizationType as Type

from qrun.config_keys import Converted, converted
from qrun.config_tensors import tensors_of
from qrun.hf_config import HfConfig
from sparse_gguf import write_tensors

__all__ = ["CONFIGS", "write_config"]

CONFIGS = {
    path.stem: json.loads(path.read_text())["config"]
    for path in sorted(Path(__file__).parent.glob("data/configs/*.json"))
}

# What llama.cpp asks of some architecture, and none minds.
_OF_EVERY_HEADER: dict[str, object] = {
    "attention.layer_norm_rms_epsilon": 1e-5,
    "attention.layer_norm_epsilon": 1e-5,
    "rope.freq_base": 500000.0,
    "logit_scale": 1.0,
}
_SECTIONS = {"rope.dimension_sections": [16, 24, 24, 0]}
_FURTHER_KEYS: dict[str, dict[str, object]] = {
    "lfm2moe": {"expert_gating_func": 2},
    "qwen2vl": _SECTIONS,
    "qwen35": _SECTIONS,
}
_AS_THE_LOADER_NAMES_THEM: dict[str, dict[str, str]] = {
    "exaone4": {"attn_norm": "post_attention_norm", "ffn_norm": "post_ffw_norm"},
    "falcon-h1": {"ffn_norm.weight": "ffn_norm"},
    "glm4moe": {"ffn_norm": "post_attention_norm"},
    "gpt-oss": {"ffn_norm": "post_attention_norm"},
    "lfm2": {"output_norm": "token_embd_norm"},
    "lfm2moe": {"output_norm": "token_embd_norm"},
    "olmo2": {"attn_norm": "post_attention_norm", "ffn_norm": "post_ffw_norm"},
    "qwen3next": {"ffn_norm": "post_attention_norm", "ssm_a.weight": "ssm_a"},
    "qwen35": {"ffn_norm": "post_attention_norm", "ssm_a.weight": "ssm_a"},
}
_BIASED_ROUTERS = frozenset({"glm4moe", "lfm2moe", "nemotron_h_moe"})
_ANYWHERE = {"ssm_a.weight": "ssm_a", "ssm_d.weight": "ssm_d"}
_ALWAYS_F32 = ("ffn_gate_inp", "ssm_conv1d", "ssm_a", "ssm_d", "shortconv.conv", "altup_", "norm")


def write_config(path: Path, config: dict[str, object]) -> Path:
    """Write the header of the model that `config` describes, Q4_K where its rows allow, and a hole for its weights."""
    made = converted(HfConfig(config))
    listed = [(tensor.name, tensor.dims) for tensor in tensors_of(made)]
    if made.architecture == "qwen35":
        listed = list(_beta_and_alpha_apart(listed))
    tensors = [_as_loaded(made, *one) for one in [*listed, *_left_out(made)]]
    return write_tensors(path, made.architecture, _keys(made), [(*one, _type(*one)) for one in tensors])


def _beta_and_alpha_apart(listed: list[tuple[str, tuple[int, ...]]]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Qwen 3.5 has two tensors where Qwen3-Next has one."""
    for name, dims in listed:
        if "ssm_ba." in name:
            yield from ((name.replace("ssm_ba", part), (dims[0], dims[1] // 2)) for part in ("ssm_beta", "ssm_alpha"))
        else:
            yield name, dims


def _keys(made: Converted) -> dict[str, object]:
    keys = {key: list(value) if isinstance(value, tuple) else value for key, value in made.keys.items()}
    head_dim = made.keys.get("attention.key_length") or _number(made, "embedding_length") // _number(
        made, "attention.head_count"
    )
    usual = dict.fromkeys(("rope.dimension_count", "attention.key_length", "attention.value_length"), head_dim)
    if shared := _number(made, "expert_shared_feed_forward_length"):
        usual["expert_shared_count"] = max(1, shared // _number(made, "expert_feed_forward_length"))
    return _OF_EVERY_HEADER | usual | {"vocab_size": made.n_vocab} | keys | _FURTHER_KEYS.get(made.architecture, {})


def _number(made: Converted, key: str, default: int = 0) -> int:
    value = made.keys.get(key, default)
    return value if isinstance(value, int) else max(value)


def _as_loaded(made: Converted, name: str, dims: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """A tensor by the name and shape that the loader asks for; its numbers stay as many."""
    if name.endswith("ssm_norm.weight") and "qwen" not in made.architecture:
        groups = _number(made, "ssm.group_count")
        dims = (dims[0] // groups, groups)
    if made.architecture == "command-r" and name.endswith(("attn_q_norm.weight", "attn_k_norm.weight")):
        head_dim = _number(made, "embedding_length") // _number(made, "attention.head_count")
        dims = (head_dim, dims[0] // head_dim)
    if made.architecture.startswith("qwen3") and name.endswith("ssm_a.weight"):
        dims = dims[-1:]
    for ours, theirs in (_ANYWHERE | _AS_THE_LOADER_NAMES_THEM.get(made.architecture, {})).items():
        if f".{ours}" in f".{name}":
            name = f".{name}".replace(f".{ours}", f".{theirs}")[1:]
            break
    return name, dims


def _left_out(made: Converted) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Small tensors that qrun's list lacks and the loader insists on."""
    n_embd, per_layer = _number(made, "embedding_length"), _number(made, "embedding_length_per_layer_input")
    if per_layer:
        yield "per_layer_proj_norm.weight", (per_layer,)
    if made.architecture == "gemma4":
        yield "rope_freqs.weight", (_number(made, "attention.key_length") // 2,)
    for layer in range(made.n_layer):
        small: dict[str, tuple[int, ...]] = {}
        if per_layer:
            small["post_norm.weight"] = (n_embd,)
        if made.architecture == "gemma3n":
            n = _number(made, "altup.num_inputs")
            small |= {
                "altup_correct_coef.weight": (n, n),
                "altup_correct_scale.weight": (n_embd,),
                "altup_predict_coef.weight": (n, n * n),
                "altup_router.weight": (n_embd, n),
                "altup_router_norm.weight": (n_embd,),
                "laurel_post_norm.weight": (n_embd,),
            }
        if made.architecture in _BIASED_ROUTERS and _has_router(made, layer):
            small["exp_probs_b.bias"] = (_number(made, "expert_count"),)
        yield from ((f"blk.{layer}.{name}", dims) for name, dims in small.items())


def _has_router(made: Converted, layer: int) -> bool:
    n_ff = made.keys.get("feed_forward_length", 0)
    if made.architecture == "nemotron_h_moe" and isinstance(n_ff, tuple):
        return bool(n_ff[layer])
    return layer >= _number(made, "leading_dense_block_count")


def _type(name: str, dims: tuple[int, ...]) -> Type:
    if len(dims) == 1 or any(part in name for part in _ALWAYS_F32):
        return Type.F32
    return next((type_ for type_, block in ((Type.Q4_K, 256), (Type.Q8_0, 32)) if dims[0] % block == 0), Type.F16)
