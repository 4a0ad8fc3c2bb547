"""config.json in llama.cpp's terms: the architecture and metadata keys its converter would write into a GGUF header.

Pure. The keys are those of conversion/*.py in llama.cpp, without the architecture's prefix, and only those that say how
a model is built. A model_type that is not in the table is refused: nobody knows how its layers look.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qrun.hf_config import HfConfig
from qrun.shape import ShapeUnknown

__all__ = ["Converted", "converted"]

Keys = dict[str, int | tuple[int, ...]]

# model_type of config.json (or of its text_config) -> llama.cpp's architecture.
_ARCHITECTURES: Mapping[str, str] = {
    "cohere": "command-r",
    "cohere2": "cohere2",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
    "glm4": "glm4",
    "glm4_moe": "glm4moe",
    "gpt_oss": "gpt-oss",
    "granite": "granite",
    "kimi_k2": "deepseek2",
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "olmo2": "olmo2",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen2_moe": "qwen2moe",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "smollm3": "smollm3",
}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_EXPERTS_USED = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "top_k_experts")
_WITH_WINDOWS = frozenset({"cohere2", "gemma2", "gemma3", "gpt-oss", "olmo2"})
_ALWAYS_TIED = frozenset({"gemma", "gemma2", "gemma3", "command-r", "cohere2"})


@dataclass(frozen=True, slots=True)
class Converted:
    """A config as the converter would write it. `keys` lack the prefix; `tied`: no output head of its own."""

    architecture: str
    keys: Mapping[str, int | tuple[int, ...]]
    n_vocab: int
    tied: bool
    qkv_bias: bool


def converted(config: HfConfig) -> Converted:
    """What the converter makes of `config`. Raises ShapeUnknown for a model_type that it or this table lacks."""
    architecture = _ARCHITECTURES.get(config.model_type)
    if architecture is None:
        raise ShapeUnknown(f"its model_type is {config.model_type!r}")
    keys = _common(config, architecture) | _experts(config, architecture) | _special(config, architecture)
    return Converted(
        architecture=architecture,
        keys=keys,
        n_vocab=config.number("vocab_size", default=262144 if architecture == "gemma3" else None),
        tied=config.flag("tie_word_embeddings", default=architecture in _ALWAYS_TIED),
        qkv_bias=config.flag("attention_bias", "qkv_bias", default=architecture in ("qwen2", "qwen2moe")),
    )


def _common(config: HfConfig, architecture: str) -> Keys:
    """What every decoder has. Gemma 3's smaller configs leave their defaults out."""
    gemma3 = architecture == "gemma3"
    n_head = config.number("num_attention_heads", "n_head", default=8 if gemma3 else None)
    keys: Keys = {
        "block_count": config.number("num_hidden_layers", "n_layer", "num_layers"),
        "context_length": config.number(
            "max_position_embeddings", "n_ctx", "n_positions", default=131072 if gemma3 else 0
        ),
        "embedding_length": config.number("hidden_size", "n_embd", "dim"),
        "feed_forward_length": config.number("intermediate_size", "n_inner", "hidden_dim", default=0),
        "attention.head_count": n_head,
        "attention.head_count_kv": config.number("num_key_value_heads", default=4 if gemma3 else n_head),
    }
    if head_dim := config.number("head_dim", default=256 if architecture.startswith("gemma") else 0):
        keys |= {"attention.key_length": head_dim, "attention.value_length": head_dim}
    if architecture in _WITH_WINDOWS and (window := config.number("sliding_window", default=0)):
        keys["attention.sliding_window"] = window
    return keys


def _experts(config: HfConfig, architecture: str) -> Keys:
    n_expert = config.number(*_EXPERTS, default=0)
    if not n_expert:
        return {}
    keys: Keys = {"expert_count": n_expert, "expert_used_count": config.number(*_EXPERTS_USED)}
    usual = config.number("intermediate_size", default=0)
    keys["expert_feed_forward_length"] = config.number("moe_intermediate_size", default=usual)
    if shared := config.number("shared_expert_intermediate_size", default=0):
        keys["expert_shared_feed_forward_length"] = shared
    if n_shared := config.number("n_shared_experts", default=0):
        keys["expert_shared_count"] = n_shared
    if architecture in ("deepseek2", "glm4moe"):
        keys["leading_dense_block_count"] = config.number("first_k_dense_replace", default=0)
    return keys


def _special(config: HfConfig, architecture: str) -> Keys:
    if architecture == "deepseek2":
        return _latent_attention(config)
    return {}


def _latent_attention(config: HfConfig) -> Keys:
    """DeepSeek's MLA as the converter writes it: one shared key a token, as wide as the latent and its RoPE part."""
    latent, rope = config.number("kv_lora_rank"), config.number("qk_rope_head_dim")
    keys: Keys = {
        "attention.head_count_kv": 1,
        "attention.key_length": latent + rope,
        "attention.value_length": latent,
        "attention.key_length_mla": config.number("qk_nope_head_dim") + rope,
        "attention.value_length_mla": config.number("v_head_dim"),
        "attention.kv_lora_rank": latent,
        "rope.dimension_count": rope,
    }
    if q_rank := config.number("q_lora_rank", default=0):
        keys["attention.q_lora_rank"] = q_rank
    return keys


def per_layer(value: int | tuple[int, ...], n_layer: int) -> Sequence[int]:
    """One number a layer; a single one holds for all."""
    return value if isinstance(value, tuple) else (value,) * n_layer
