"""The tensors that a converted config.json would have: names and dimensions, as llama.cpp's loader asks for them.

Pure. Sources: load_arch_tensors of each architecture in llama.cpp's src/models. Biases and norms are there where they
are certain; they are a ten-thousandth of a model's weights.
"""

from collections.abc import Iterator
from math import prod

from qrun.config_keys import Converted
from qrun.gguf_header import TensorInfo

__all__ = ["tensors_of"]

_Tensor = tuple[str, tuple[int, ...]]

_F16 = 1  # a type for the bytes' sake: callers count weights
_NORM_OF_HEADS = frozenset(
    {"exaone4", "gemma3", "gemma3n", "gemma4", "hunyuan-dense", "lfm2", "lfm2moe"}
    | {"qwen3", "qwen35", "qwen35moe", "qwen3moe", "qwen3next", "qwen3vl", "qwen3vlmoe"}
)
_NORM_OF_ALL_HEADS = frozenset({"minimax-m2", "olmo2", "olmoe"})
_POST_NORMS = frozenset({"gemma2", "gemma3", "gemma3n", "gemma4", "glm4"})
_FUSED_QKV = frozenset({"phi3"})
_FUSED_GATE = frozenset({"glm4", "phi3"})  # gate and up are one tensor
_UNGATED = frozenset({"arcee", "nemotron_h", "nemotron_h_moe"})
_ATTENTION_TOO = frozenset({"falcon-h1"})  # beside the recurrent part, in every layer
_ONE_PART_A_LAYER = frozenset({"nemotron_h", "nemotron_h_moe"})
_ONE_NORM_A_LAYER = _ONE_PART_A_LAYER | {"command-r", "cohere2"}
_NORM_FROM_LAYERS = 64  # command-r: of heads, in the large one alone
_DELTA_NET = frozenset({"qwen3next", "qwen35", "qwen35moe"})
_DENSE_BESIDE_EXPERTS = frozenset({"gemma4"})  # llama.cpp keeps its shared expert in the dense tensors' names
_FUSED_EXPERTS = frozenset({"gemma4"})


def tensors_of(made: Converted) -> tuple[TensorInfo, ...]:
    """All tensors of the model, with two bytes a weight."""
    return tuple(TensorInfo(name, dims, _F16, 0, 2 * prod(dims)) for name, dims in _Layout(made).tensors())


class _Layout:
    def __init__(self, made: Converted) -> None:
        self._made = made
        self._arch = made.architecture
        self._n_embd = self._key("embedding_length")
        self._n_head = self._key("attention.head_count")

    def tensors(self) -> Iterator[_Tensor]:
        table = (self._n_embd, self._made.n_vocab)
        yield "token_embd.weight", table
        yield from self._further_inputs()
        for layer in range(self._made.n_layer):
            for name, dims in self._layer(layer):
                yield f"blk.{layer}.{name}" + ("" if name.endswith(".bias") else ".weight"), dims
        yield "output_norm.weight", (self._n_embd,)
        if not self._made.tied:
            yield "output.weight", table

    def _key(self, name: str, layer: int = 0) -> int:
        value = self._made.keys.get(name, 0)
        return value if isinstance(value, int) else value[layer]

    def _further_inputs(self) -> Iterator[_Tensor]:
        """Gemma 3n and 4: a second table with a row for each layer, and what brings it to the layers' width."""
        width = self._key("embedding_length_per_layer_input") * self._made.n_layer
        if width:
            yield "per_layer_token_embd.weight", (width, self._made.n_vocab)
            yield "per_layer_model_proj.weight", (self._n_embd, width)
        if (n_altup := self._key("altup.num_inputs")) > 1:
            yield "altup_proj.weight", (self._n_embd, self._n_embd, n_altup - 1)
            yield "altup_unembd_proj.weight", (self._n_embd, self._n_embd, n_altup - 1)

    def _layer(self, layer: int) -> Iterator[_Tensor]:
        yield "attn_norm", (self._n_embd,)
        if self._made.recurrent[layer]:
            yield from self._recurrent()
        if self._attends(layer):
            yield from self._attention(layer)
        if self._arch in _ONE_PART_A_LAYER and not self._key("feed_forward_length", layer):
            return
        if self._arch not in _ONE_NORM_A_LAYER:
            yield "ffn_norm", (self._n_embd,)
        if self._arch in _POST_NORMS:
            yield "post_attention_norm", (self._n_embd,)
            yield "post_ffw_norm", (self._n_embd,)
        has_experts = self._has_experts(layer)
        if has_experts:
            yield from self._experts()
        if not has_experts or self._arch in _DENSE_BESIDE_EXPERTS:
            yield from self._feed_forward(layer)
        yield from self._per_layer_inputs()

    def _attends(self, layer: int) -> bool:
        if self._made.recurrent[layer]:
            return self._arch in _ATTENTION_TOO
        return self._key("attention.head_count_kv", layer) > 0

    def _has_experts(self, layer: int) -> bool:
        step = self._key("interleave_moe_layer_step") or 1
        return (
            self._key("expert_count") > 0
            and layer >= self._key("leading_dense_block_count")
            and (layer + 1) % step == 0
        )

    def _attention(self, layer: int) -> Iterator[_Tensor]:
        if self._key("attention.kv_lora_rank"):
            yield from self._latent_attention()
            return
        k, v = self._head_dims(layer)
        n_kv = self._key("attention.head_count_kv", layer)
        widths = {"q": self._n_head * k * (2 if self._arch in _DELTA_NET else 1)}
        widths["k"] = n_kv * k
        if not self._values_are_keys(layer):
            widths["v"] = n_kv * v
        if self._arch in _FUSED_QKV:
            widths = {"qkv": sum(widths.values())}
        for part, width in widths.items():
            yield f"attn_{part}", (self._n_embd, width)
            if self._made.qkv_bias:
                yield f"attn_{part}.bias", (width,)
        yield "attn_output", (self._n_head * v, self._n_embd)
        if self._arch in _NORM_OF_HEADS:
            yield from (("attn_q_norm", (k,)), ("attn_k_norm", (k,)))
        if self._arch in _NORM_OF_ALL_HEADS or (self._arch == "command-r" and self._made.n_layer >= _NORM_FROM_LAYERS):
            yield from (("attn_q_norm", (self._n_head * k,)), ("attn_k_norm", (n_kv * k,)))
        if self._arch == "gpt-oss":
            yield from (("attn_sinks", (self._n_head,)), ("attn_output.bias", (self._n_embd,)))

    def _values_are_keys(self, layer: int) -> bool:
        """Whether a layer has no tensor for its values: Gemma 4's large ones, where they see everything."""
        return bool(self._key("attention.k_eq_v")) and not self._key("attention.sliding_window_pattern", layer)

    def _head_dims(self, layer: int) -> tuple[int, int]:
        slides = self._key("attention.sliding_window_pattern", layer) if self._key("attention.key_length_swa") else 0
        suffix = "_swa" if slides else ""
        usual = self._n_embd // max(1, self._n_head)
        return (
            self._key(f"attention.key_length{suffix}") or usual,
            self._key(f"attention.value_length{suffix}") or usual,
        )

    def _latent_attention(self) -> Iterator[_Tensor]:
        n_head, latent, rope = self._n_head, self._key("attention.kv_lora_rank"), self._key("rope.dimension_count")
        q_width = n_head * self._key("attention.key_length_mla")
        nope, v = self._key("attention.key_length_mla") - rope, self._key("attention.value_length_mla")
        if rank := self._key("attention.q_lora_rank"):
            yield "attn_q_a", (self._n_embd, rank)
            yield "attn_q_a_norm", (rank,)
            yield "attn_q_b", (rank, q_width)
        else:
            yield "attn_q", (self._n_embd, q_width)
        yield "attn_kv_a_mqa", (self._n_embd, latent + rope)
        yield "attn_kv_a_norm", (latent,)
        yield "attn_k_b", (nope, latent, n_head)
        yield "attn_v_b", (latent, v, n_head)
        yield "attn_output", (n_head * v, self._n_embd)

    def _recurrent(self) -> Iterator[_Tensor]:
        if cache := self._key("shortconv.l_cache"):
            yield "shortconv.conv", (cache, self._n_embd)
            yield "shortconv.in_proj", (self._n_embd, 3 * self._n_embd)
            yield "shortconv.out_proj", (self._n_embd, self._n_embd)
            return
        inner, state, n_heads = (self._key(f"ssm.{name}") for name in ("inner_size", "state_size", "time_step_rank"))
        mixed = inner + 2 * self._key("ssm.group_count") * state
        if self._arch in _DELTA_NET:
            yield "attn_qkv", (self._n_embd, mixed)
            yield "attn_gate", (self._n_embd, inner)
            yield "ssm_ba", (self._n_embd, 2 * n_heads)
            yield "ssm_norm", (state,)
        else:
            yield "ssm_in", (self._n_embd, inner + mixed + n_heads)
            yield "ssm_conv1d.bias", (mixed,)
            yield "ssm_d", (1, n_heads)
            yield "ssm_norm", (inner,)
        yield "ssm_conv1d", (self._key("ssm.conv_kernel"), mixed)
        yield "ssm_dt.bias", (n_heads,)
        yield "ssm_a", (1, n_heads)
        yield "ssm_out", (inner, self._n_embd)

    def _feed_forward(self, layer: int) -> Iterator[_Tensor]:
        n_ff = self._key("feed_forward_length", layer)
        if self._arch in _FUSED_GATE:
            yield "ffn_up", (self._n_embd, 2 * n_ff)
        else:
            yield "ffn_up", (self._n_embd, n_ff)
            if self._arch not in _UNGATED:
                yield "ffn_gate", (self._n_embd, n_ff)
        yield "ffn_down", (n_ff, self._n_embd)

    def _experts(self) -> Iterator[_Tensor]:
        n_expert, width = self._key("expert_count"), self._key("expert_feed_forward_length")
        yield "ffn_gate_inp", (self._n_embd, n_expert)
        n_in = self._key("moe_latent_size") or self._n_embd
        if n_in != self._n_embd:
            yield from (("ffn_latent_down", (self._n_embd, n_in)), ("ffn_latent_up", (n_in, self._n_embd)))
        if self._arch in _FUSED_EXPERTS:
            yield "ffn_gate_up_exps", (n_in, 2 * width, n_expert)
        else:
            yield "ffn_up_exps", (n_in, width, n_expert)
            if self._arch not in _UNGATED:
                yield "ffn_gate_exps", (n_in, width, n_expert)
        yield "ffn_down_exps", (width, n_in, n_expert)
        if self._arch == "gpt-oss":
            yield "ffn_gate_inp.bias", (n_expert,)
            yield from ((f"ffn_{part}_exps.bias", (width, n_expert)) for part in ("gate", "up"))
            yield "ffn_down_exps.bias", (self._n_embd, n_expert)
        if shared := self._key("expert_shared_feed_forward_length"):
            parts = ("up",) if self._arch in _UNGATED else ("gate", "up")
            yield from ((f"ffn_{part}_shexp", (self._n_embd, shared)) for part in parts)
            yield "ffn_down_shexp", (shared, self._n_embd)
            if self._arch.startswith("qwen"):
                yield "ffn_gate_inp_shexp", (self._n_embd,)

    def _per_layer_inputs(self) -> Iterator[_Tensor]:
        if width := self._key("embedding_length_per_layer_input"):
            yield "inp_gate", (self._n_embd, width)
            yield "proj", (width, self._n_embd)
        if rank := self._key("laurel_rank"):
            yield "laurel_l", (self._n_embd, rank)
            yield "laurel_r", (rank, self._n_embd)
