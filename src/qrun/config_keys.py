"""config.json in llama.cpp's terms: the architecture and metadata keys its converter would write into a GGUF header.

Pure. The keys are those of conversion/*.py in llama.cpp (the version in llama-cpp-python 0.3.36), without the
architecture's prefix, and only those that say how a model is built. A model_type that is not in the table is refused:
nobody knows how its layers look. Draft layers (MTP) are left out, as everywhere in qrun.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from qrun.config_recurrent import recurrent_keys
from qrun.hf_config import HfConfig, Keys
from qrun.shape import ShapeUnknown

__all__ = ["Converted", "architectures_of", "converted"]

# model_type of config.json (or of its text_config) -> llama.cpp's architecture.
_ARCHITECTURES: Mapping[str, str] = {
    "arcee": "arcee",
    "cohere": "command-r",
    "cohere2": "cohere2",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
    "ernie4_5": "ernie4_5",
    "ernie4_5_moe": "ernie4_5-moe",
    "exaone4": "exaone4",
    "falcon_h1": "falcon-h1",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
    "gemma3n": "gemma3n",
    "gemma3n_text": "gemma3n",
    "gemma4": "gemma4",
    "gemma4_text": "gemma4",
    "glm4": "glm4",
    "glm4_moe": "glm4moe",
    "glm4_moe_lite": "deepseek2",
    "glm4v_moe_text": "glm4moe",
    "glm4v_text": "glm4",
    "gpt_oss": "gpt-oss",
    "granite": "granite",
    "granitemoe": "granitemoe",
    "granitemoehybrid": "granitehybrid",
    "granitemoeshared": "granitemoe",
    "hunyuan_v1_dense": "hunyuan-dense",
    "kimi_k2": "deepseek2",
    "lfm2": "lfm2",
    "lfm2_moe": "lfm2moe",
    "llama": "llama",
    "llama4_text": "llama4",
    "minimax_m2": "minimax-m2",
    "ministral3": "mistral3",
    "mistral": "llama",
    "mixtral": "llama",
    "nemotron_h": "nemotron_h",
    "olmo2": "olmo2",
    "olmo3": "olmo2",
    "olmoe": "olmoe",
    "phi3": "phi3",
    "phimoe": "phimoe",
    "qwen2": "qwen2",
    "qwen2_5_vl": "qwen2vl",
    "qwen2_5_vl_text": "qwen2vl",
    "qwen2_moe": "qwen2moe",
    "qwen2_vl": "qwen2vl",
    "qwen2_vl_text": "qwen2vl",
    "qwen3": "qwen3",
    "qwen3_5": "qwen35",
    "qwen3_5_moe": "qwen35moe",
    "qwen3_5_moe_text": "qwen35moe",
    "qwen3_5_text": "qwen35",
    "qwen3_moe": "qwen3moe",
    "qwen3_next": "qwen3next",
    "qwen3_vl": "qwen3vl",
    "qwen3_vl_moe": "qwen3vlmoe",
    "qwen3_vl_moe_text": "qwen3vlmoe",
    "qwen3_vl_text": "qwen3vl",
    "seed_oss": "seed_oss",
    "smollm3": "smollm3",
}
# What `_exact` makes of some of them.
_SPLIT_FURTHER = {"granitehybrid": ("granite", "granitemoe"), "nemotron_h": ("nemotron_h_moe",)}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_EXPERTS_USED = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "top_k_experts")
_LEADING_DENSE = ("first_k_dense_replace", "moe_layer_start_index", "num_dense_layers")
_SHARED_WIDTH = ("shared_expert_intermediate_size", "shared_intermediate_size", "moe_shared_expert_intermediate_size")
_N_SHARED = ("n_shared_experts", "moe_num_shared_experts")
# Their converters write no head of its own whatever the config says.
_ALWAYS_TIED = frozenset({"gemma", "gemma2", "gemma3", "gemma3n", "gemma4", "command-r", "cohere2"})
_TIED_UNLESS_SAID = frozenset({"lfm2", "lfm2moe", "smollm3", "ernie4_5", "ernie4_5-moe"})  # transformers' defaults
_BIASED_UNLESS_SAID = frozenset({"qwen2", "qwen2moe", "qwen2vl"})  # their configs have no switch for it
_HEAD_DIM_IGNORED = frozenset({"granite", "granitemoe", "granitehybrid"})
_GEMMA_HEAD_DIM = 256
# Gemma 3 and 3n state rows beyond their tokenizer's tokens; the converter cuts them off.
_GEMMA_N_VOCAB = 262144
_LONG_CONTEXT = 131072
_UNLIMITED_CONTEXT = 2**20  # written for Mamba hybrids without RoPE
_HUNYUAN_CONTEXT = 256 * 1024  # of those with dynamic RoPE, whatever the config says


@dataclass(frozen=True, slots=True)
class Converted:
    """A config as the converter would write it. `keys` lack the prefix; `tied`: no output head of its own."""

    architecture: str
    keys: Mapping[str, int | tuple[int, ...]]
    n_layer: int
    n_vocab: int
    tied: bool
    qkv_bias: bool
    recurrent: tuple[bool, ...]  # the layers that keep a state; in some architectures beside attention


def converted(config: HfConfig) -> Converted:
    """What the converter makes of `config`. Raises ShapeUnknown for a model_type that it or this table lacks."""
    architecture = _ARCHITECTURES.get(config.model_type)
    if architecture is None:
        raise ShapeUnknown(f"its model_type is {config.model_type!r:.40}")
    keys = _common(config, architecture) | _experts(config, architecture)
    if special := _SPECIAL.get(architecture):
        keys |= special(config, keys)
    n_layer = config.n_layer
    recurrent, found = recurrent_keys(config, architecture)
    keys |= found
    architecture = _exact(architecture, keys, recurrent)
    if architecture in ("granitehybrid", "nemotron_h", "nemotron_h_moe"):
        keys["context_length"] = _UNLIMITED_CONTEXT
    return Converted(
        architecture=architecture,
        keys=keys,
        n_layer=n_layer,
        n_vocab=_n_vocab(config, architecture),
        tied=_tied(config, architecture),
        qkv_bias=config.flag("attention_bias", "qkv_bias", default=architecture in _BIASED_UNLESS_SAID),
        recurrent=recurrent or (False,) * n_layer,
    )


def architectures_of(model_types: Iterable[str]) -> frozenset[str]:
    """llama.cpp's architectures that models of these `model_type`s are, as far as the table knows them."""
    known = {_ARCHITECTURES[name] for name in model_types if name in _ARCHITECTURES}
    return frozenset(known | {also for name in known for also in _SPLIT_FURTHER.get(name, ())})


def _exact(architecture: str, keys: Keys, recurrent: tuple[bool, ...]) -> str:
    """Where one model_type makes several architectures. Granite 4 without Mamba layers is a plain Granite."""
    experts = keys.get("expert_used_count")
    if architecture == "granitehybrid" and not any(recurrent):
        return "granitemoe" if experts else "granite"
    if architecture == "nemotron_h" and experts:
        return "nemotron_h_moe"
    return architecture


def _common(config: HfConfig, architecture: str) -> Keys:
    """What every decoder has. Gemma 3's smaller configs leave their defaults out."""
    gemma3 = architecture == "gemma3"
    n_head = config.number("num_attention_heads", "n_head", default=8 if gemma3 else None)
    longest = ("model_max_length",) if architecture == "command-r" else ()
    keys: Keys = {
        "block_count": config.n_layer,
        "context_length": config.number(
            *longest, "max_position_embeddings", "n_positions", default=_LONG_CONTEXT if gemma3 else 0
        ),
        "embedding_length": config.number("hidden_size", "n_embd"),
        "feed_forward_length": config.numbers("intermediate_size", default=0),
        "attention.head_count": n_head,
        "attention.head_count_kv": config.number("num_key_value_heads", default=4 if gemma3 else n_head),
    }
    head_dim = config.number("head_dim", default=_GEMMA_HEAD_DIM if architecture.startswith("gemma") else 0)
    if head_dim and architecture not in _HEAD_DIM_IGNORED:
        keys |= {"attention.key_length": head_dim, "attention.value_length": head_dim}
    return keys


def _experts(config: HfConfig, architecture: str) -> Keys:
    keys: Keys = {}
    if used := config.number(*_EXPERTS_USED, default=0):
        keys["expert_used_count"] = used
    n_expert = config.number(*_EXPERTS, default=0)
    if not n_expert or (architecture == "hunyuan-dense" and n_expert == 1):
        if architecture in ("granite", "granitemoe", "granitehybrid"):  # the shared expert is the feed-forward then
            keys["feed_forward_length"] = config.number("shared_intermediate_size", "intermediate_size")
        return keys
    usual = config.number("intermediate_size", default=0)
    width = config.number("moe_intermediate_size", "expert_intermediate_size", default=usual)
    keys |= {"expert_count": n_expert, "expert_feed_forward_length": width}
    shared = config.number(*_SHARED_WIDTH, default=width * config.number(*_N_SHARED, default=0))
    if shared:
        keys["expert_shared_feed_forward_length"] = shared
    if leading := config.number(*_LEADING_DENSE, default=0):
        keys["leading_dense_block_count"] = leading
    return keys


def _latent_attention(config: HfConfig, _: Keys) -> Keys:
    """DeepSeek's MLA as the converter writes it: one shared key a token, as wide as the latent and its RoPE part."""
    latent, rope = config.number("kv_lora_rank", default=512), config.number("qk_rope_head_dim")
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


def _window(config: HfConfig, _: Keys) -> Keys:
    """A window whose pattern llama.cpp's code knows."""
    window = config.number("sliding_window", default=0)
    return {"attention.sliding_window": window} if window and config.get("sliding_window_pattern") != 1 else {}


def _window_by_layer(config: HfConfig, keys: Keys) -> Keys:
    """A window with the file's own pattern: `layer_types`, or a word (LLLG) or period in sliding_window_pattern."""
    found = _window(config, keys)
    if not found:
        return {}
    n_layer, pattern = config.n_layer, config.get("sliding_window_pattern", 4)
    if types := config.words("layer_types"):
        slides = [one == "sliding_attention" for one in types]
    elif isinstance(pattern, str) and pattern:
        slides = [pattern[layer % len(pattern)] == "L" for layer in range(n_layer)]
    elif isinstance(pattern, int) and pattern > 0:
        slides = [(layer + 1) % pattern != 0 for layer in range(n_layer)]
    else:
        return found
    return found | {"attention.sliding_window_pattern": tuple(map(int, slides))}


def _gemma3n(config: HfConfig, keys: Keys) -> Keys:
    per_layer: Keys = {
        "attention.shared_kv_layers": config.number("num_kv_shared_layers", default=0),
        "embedding_length_per_layer_input": config.number("hidden_size_per_layer_input", default=0),
        "altup.num_inputs": config.number("altup_num_inputs", default=4),
        "laurel_rank": config.number("laurel_rank", default=64),
    }
    return _window_by_layer(config, keys) | per_layer


def _gemma4(config: HfConfig, keys: Keys) -> Keys:
    """Layers that see everything have other heads than those with a window; the last ones share caches."""
    found = _window_by_layer(config, keys)
    shared = config.number("num_kv_shared_layers", default=0)
    n_layer, width = config.n_layer, config.number("head_dim")
    wide = config.number("global_head_dim", default=width)
    n_ff = config.number("intermediate_size")
    double = 2 if config.flag("use_double_wide_mlp", default=False) else 1
    slides = found.get("attention.sliding_window_pattern", ())
    kv = config.number("num_key_value_heads")
    kv_wide = config.number("num_global_key_value_heads", default=kv)
    if not isinstance(slides, tuple) or len(slides) != n_layer:
        raise ShapeUnknown("its config.json does not say which layers have a window")
    return found | {
        "attention.shared_kv_layers": shared,
        "attention.k_eq_v": int(config.flag("attention_k_eq_v", default=False)),  # no key of llama.cpp's
        "embedding_length_per_layer_input": config.number("hidden_size_per_layer_input", default=0),
        "attention.key_length": wide,
        "attention.value_length": wide,
        "attention.key_length_swa": width,
        "attention.value_length_swa": width,
        "attention.head_count_kv": tuple(kv if slide else kv_wide for slide in slides),
        "feed_forward_length": tuple(n_ff if i < n_layer - shared else n_ff * double for i in range(n_layer)),
    }


def _llama4(config: HfConfig, _: Keys) -> Keys:
    """Every `interleave_moe_layer_step`-th layer has experts, and one shared of the same width."""
    width = config.number("intermediate_size")
    keys: Keys = {
        "feed_forward_length": config.number("intermediate_size_mlp"),
        "interleave_moe_layer_step": config.number("interleave_moe_layer_step", default=1),
        "expert_feed_forward_length": width,
        "expert_shared_feed_forward_length": width,
    }
    types = config.words("layer_types")
    return keys | ({"attention.sliding_window": 0} if types and set(types) == {"full_attention"} else {})


def _hunyuan(config: HfConfig, _: Keys) -> Keys:
    rope = config.get("rope_scaling") or config.get("rope_parameters")
    kind = (rope.get("rope_type") or rope.get("type")) if isinstance(rope, Mapping) else None
    return {"context_length": _HUNYUAN_CONTEXT} if kind == "dynamic" else {}


_SPECIAL: Mapping[str, Callable[[HfConfig, Keys], Keys]] = {
    "cohere2": _window,
    "deepseek2": _latent_attention,
    "exaone4": _window_by_layer,
    "gemma2": _window,
    "gemma3": _window,
    "gemma3n": _gemma3n,
    "gemma4": _gemma4,
    "gpt-oss": _window,
    "hunyuan-dense": _hunyuan,
    "llama4": _llama4,
    "olmo2": _window_by_layer,
}


def _n_vocab(config: HfConfig, architecture: str) -> int:
    if architecture in ("gemma3", "gemma3n"):
        return min(config.number("vocab_size", default=_GEMMA_N_VOCAB), _GEMMA_N_VOCAB)
    n_vocab = config.number("vocab_size")
    if architecture in ("granitehybrid", "nemotron_h", "nemotron_h_moe"):  # padded, as Mamba's are
        return -(-n_vocab // 8) * 8
    return n_vocab


def _tied(config: HfConfig, architecture: str) -> bool:
    if architecture in _ALWAYS_TIED:
        return True
    return config.flag("tie_word_embeddings", "tie_embedding", default=architecture in _TIED_UNLESS_SAID)
