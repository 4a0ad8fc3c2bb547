"""The metadata of recurrent layers, as llama.cpp's converter writes it for a config.json of a hybrid model.

Pure. Sources: conversion/{granite,falcon_h1,nemotron,lfm2,qwen}.py in llama.cpp.
"""

from qrun.hf_config import HfConfig, Keys
from qrun.shape import ShapeUnknown

__all__ = ["recurrent_keys"]

_NEMOTRON_PARTS = {"mamba": "M", "attention": "*", "moe": "E", "mlp": "-"}


def recurrent_keys(config: HfConfig, architecture: str) -> tuple[tuple[bool, ...], Keys]:
    """Which layers of the model keep a state, and the keys that say so; neither for other architectures."""
    if architecture == "granitehybrid":
        return _granite(config)
    if architecture == "falcon-h1":
        return (True,) * config.n_layer, _falcon_h1(config)
    if architecture == "nemotron_h":
        return _nemotron_h(config)
    if architecture in ("lfm2", "lfm2moe"):
        return _short_convolution(config)
    if architecture in ("qwen3next", "qwen35", "qwen35moe"):
        return _delta_net(config)
    return (), {}


def _granite(config: HfConfig) -> tuple[tuple[bool, ...], Keys]:
    recurrent = tuple(one != "attention" for one in _layer_types(config))
    if not any(recurrent):
        return recurrent, {}
    inner = config.number("mamba_expand", default=2) * config.number("hidden_size")
    keys = _mamba2(config, inner, config.number("mamba_n_heads")) | _heads_by_layer(config, recurrent)
    return recurrent, keys


def _falcon_h1(config: HfConfig) -> Keys:
    expanded = config.number("mamba_expand", default=2) * config.number("hidden_size")
    return _mamba2(config, config.number("mamba_d_ssm", default=expanded), config.number("mamba_n_heads"))


def _nemotron_h(config: HfConfig) -> tuple[tuple[bool, ...], Keys]:
    """One part a layer: M is Mamba, * attention, the others a feed-forward or experts."""
    pattern = config.get("hybrid_override_pattern")
    if pattern is None:
        pattern = "".join(_NEMOTRON_PARTS.get(one, "?") for one in config.words("layers_block_type"))
    if not isinstance(pattern, str) or len(pattern) != config.n_layer or not set(pattern) <= set("M*E-"):
        raise ShapeUnknown("its config.json has no pattern of its layers")
    n_heads = config.number("mamba_num_heads")
    n_ff = config.number("moe_intermediate_size" if "E" in pattern else "intermediate_size")
    kv = config.number("num_key_value_heads")
    head_dim = config.number("head_dim", "attention_head_dim")
    keys = _mamba2(config, n_heads * config.number("mamba_head_dim"), n_heads)
    keys |= {
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.head_count_kv": tuple(kv if part == "*" else 0 for part in pattern),
        "feed_forward_length": tuple(0 if part in "M*" else n_ff for part in pattern),
    }
    if latent := config.number("moe_latent_size", default=0):
        keys["moe_latent_size"] = latent
    return tuple(part == "M" for part in pattern), keys


def _mamba2(config: HfConfig, inner: int, n_heads: int) -> Keys:
    return {
        "ssm.conv_kernel": config.number("mamba_d_conv", "conv_kernel", default=4),
        "ssm.state_size": config.number("mamba_d_state", "ssm_state_size"),
        "ssm.group_count": config.number("mamba_n_groups", "n_groups", default=1),
        "ssm.inner_size": inner,
        "ssm.time_step_rank": n_heads,
    }


def _short_convolution(config: HfConfig) -> tuple[tuple[bool, ...], Keys]:
    """LFM2. Its first configs name the layers of attention by index, and a width that is still to be cut."""
    if config.get("layer_types") is None and config.get("full_attn_idxs") is not None:
        attention = set(config.index_list("full_attn_idxs"))
        recurrent = tuple(layer not in attention for layer in range(config.n_layer))
    else:
        recurrent = tuple(one != "full_attention" for one in _layer_types(config))
    keys = _heads_by_layer(config, recurrent) | {"shortconv.l_cache": config.number("conv_L_cache")}
    n_ff = config.number("block_ff_dim", "intermediate_size")
    if config.flag("block_auto_adjust_ff_dim", default=False):
        n_ff = int(config.real("block_ffn_dim_multiplier", default=1.0) * (2 * n_ff // 3))
        multiple = max(1, config.number("block_multiple_of", default=256))
        n_ff = -(-n_ff // multiple) * multiple
    return recurrent, keys | {"feed_forward_length": n_ff}


def _delta_net(config: HfConfig) -> tuple[tuple[bool, ...], Keys]:
    """Qwen3-Next and after: linear attention, every fourth layer usual attention."""
    interval = config.number("full_attention_interval", default=4) or 1
    n_values = config.number("linear_num_value_heads")
    keys: Keys = {
        "ssm.conv_kernel": config.number("linear_conv_kernel_dim"),
        "ssm.state_size": config.number("linear_key_head_dim"),
        "ssm.group_count": config.number("linear_num_key_heads"),
        "ssm.time_step_rank": n_values,
        "ssm.inner_size": config.number("linear_value_head_dim") * n_values,
        "full_attention_interval": interval,
    }
    if config.get("layer_types") is None:
        return tuple((layer + 1) % interval != 0 for layer in range(config.n_layer)), keys
    recurrent = tuple(one == "linear_attention" for one in _layer_types(config))
    return recurrent, keys | {"attention.recurrent_layers": tuple(map(int, recurrent))}


def _layer_types(config: HfConfig) -> tuple[str, ...]:
    types = config.words("layer_types")
    if len(types) != config.n_layer:
        raise ShapeUnknown(f"its config.json has {len(types)} layer_types for {config.n_layer} layers")
    return types


def _heads_by_layer(config: HfConfig, recurrent: tuple[bool, ...]) -> Keys:
    kv = config.number("num_key_value_heads")
    return {"attention.head_count_kv": tuple(0 if state else kv for state in recurrent)}
