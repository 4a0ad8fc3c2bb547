"""The tensors that a converted config.json would have: names and dimensions, as llama.cpp's converter lays them out.

Pure. Biases and norms are there where they are certain; they are a ten-thousandth of a model's weights.
"""

from collections.abc import Iterator
from math import prod

from qrun.config_keys import Converted
from qrun.gguf_header import TensorInfo

__all__ = ["tensors_of"]

_Tensor = tuple[str, tuple[int, ...]]

_F16 = 1  # a type for the bytes' sake: callers count weights
_QK_NORM = frozenset({"gemma3", "qwen3", "qwen3moe"})
_POST_NORMS = frozenset({"gemma2", "gemma3", "glm4"})
_FUSED = frozenset({"phi3"})  # one tensor for q, k and v, and one for gate and up


def tensors_of(made: Converted) -> tuple[TensorInfo, ...]:
    """All tensors of the model, with two bytes a weight."""
    return tuple(TensorInfo(name, dims, _F16, 0, 2 * prod(dims)) for name, dims in _Layout(made).tensors())


class _Layout:
    def __init__(self, made: Converted) -> None:
        self._made = made
        self._arch = made.architecture
        self._n_embd = self._key("embedding_length")
        self._n_head = self._key("attention.head_count")
        self._n_head_kv = self._key("attention.head_count_kv")
        usual = self._n_embd // max(1, self._n_head)
        self._k, self._v = self._key("attention.key_length") or usual, self._key("attention.value_length") or usual

    def tensors(self) -> Iterator[_Tensor]:
        table = (self._n_embd, self._made.n_vocab)
        yield "token_embd.weight", table
        for layer in range(self._key("block_count")):
            for name, dims in self._layer(layer):
                yield f"blk.{layer}.{name}.weight", dims
        yield "output_norm.weight", (self._n_embd,)
        if not self._made.tied:
            yield "output.weight", table

    def _key(self, name: str) -> int:
        value = self._made.keys.get(name, 0)
        return value if isinstance(value, int) else max(value, default=0)

    def _layer(self, layer: int) -> Iterator[_Tensor]:
        yield "attn_norm", (self._n_embd,)
        yield "ffn_norm", (self._n_embd,)
        if self._arch in _POST_NORMS:
            yield "post_attention_norm", (self._n_embd,)
            yield "post_ffw_norm", (self._n_embd,)
        yield from self._latent_attention() if self._key("attention.kv_lora_rank") else self._attention()
        dense = layer < self._key("leading_dense_block_count")
        yield from self._experts() if self._key("expert_count") and not dense else self._feed_forward()

    def _attention(self) -> Iterator[_Tensor]:
        q, k, v = self._n_head * self._k, self._n_head_kv * self._k, self._n_head_kv * self._v
        parts = {"qkv": q + k + v} if self._arch in _FUSED else {"q": q, "k": k, "v": v}
        for part, width in parts.items():
            yield f"attn_{part}", (self._n_embd, width)
            if self._made.qkv_bias:
                yield f"attn_{part}.bias", (width,)
        yield "attn_output", (self._n_head * self._v, self._n_embd)
        if self._arch in _QK_NORM:
            yield "attn_q_norm", (self._k,)
            yield "attn_k_norm", (self._k,)

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

    def _feed_forward(self) -> Iterator[_Tensor]:
        n_ff = self._key("feed_forward_length")
        if self._arch in _FUSED:
            yield "ffn_up", (self._n_embd, 2 * n_ff)
        else:
            yield "ffn_gate", (self._n_embd, n_ff)
            yield "ffn_up", (self._n_embd, n_ff)
        yield "ffn_down", (n_ff, self._n_embd)

    def _experts(self) -> Iterator[_Tensor]:
        n_expert, width = self._key("expert_count"), self._key("expert_feed_forward_length")
        yield "ffn_gate_inp", (self._n_embd, n_expert)
        yield "ffn_gate_exps", (self._n_embd, width, n_expert)
        yield "ffn_up_exps", (self._n_embd, width, n_expert)
        yield "ffn_down_exps", (width, self._n_embd, n_expert)
        shared = self._key("expert_shared_feed_forward_length") or width * self._key("expert_shared_count")
        if shared:
            yield "ffn_gate_shexp", (self._n_embd, shared)
            yield "ffn_up_shexp", (self._n_embd, shared)
            yield "ffn_down_shexp", (shared, self._n_embd)
