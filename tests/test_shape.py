"""A model's dimensions and bytes from its header, as llama.cpp reads the same keys."""

import pytest
from gguf import GGMLQuantizationType as Type
from hypothesis import given
from hypothesis import strategies as st

from qrun.gguf_header import ArrayInfo, GgufHeader, TensorInfo
from qrun.model import LayerShape
from qrun.shape import ShapeUnknown, shape_of
from sparse_gguf import MODELS, write_sparse
from test_gguf_header import header_of_file

COMMON = {
    "block_count": 12,
    "embedding_length": 1024,
    "attention.head_count": 16,
    "attention.head_count_kv": 4,
    "context_length": 8192,
}


def header(arch: str, tensors=(), general=(), **keys) -> GgufHeader:
    """A header of these keys (dots written as two underscores) over the common ones; None takes one away."""
    named = COMMON | {key.replace("__", "."): value for key, value in keys.items()}
    metadata = {"general.architecture": arch} | dict(general)
    metadata |= {f"{arch}.{key}": value for key, value in named.items() if value is not None}
    return GgufHeader(3, metadata, tuple(tensors), 4096, 8192)


def layers(arch: str, **keys) -> tuple[LayerShape, ...]:
    """What each layer of such a header keeps."""
    return shape_of([header(arch, **keys)])[0].layers


def windows(arch: str, **keys) -> list[int | None]:
    """Each layer's sliding window."""
    return [layer.window for layer in layers(arch, **keys)]


def tensor(name: str, *dims: int, type_: Type = Type.F16) -> TensorInfo:
    """A tensor of two bytes a weight."""
    n_elements = 1
    for dim in dims:
        n_elements *= dim
    return TensorInfo(name, dims, type_.value, 0, 2 * n_elements)


def test_a_published_model_has_its_published_dimensions(smollm2_q4_1):
    """SmolLM2-135M-Instruct: 30 layers, 9 heads on 3, tied embeddings in Q8_0, the rest Q4_1."""
    shape, weights = shape_of([header_of_file(smollm2_q4_1)])

    assert (shape.architecture, shape.n_layer, shape.n_embd, shape.n_ff) == ("llama", 30, 576, 1536)
    assert (shape.n_head, shape.n_vocab, shape.n_ctx_train) == (9, 49152, 8192)
    assert set(shape.layers) == {LayerShape(n_head_kv=3, head_dim_k=64, head_dim_v=64)}
    assert weights.n_params == 134_515_008
    assert weights.total_bytes == 96_576_768
    assert weights.token_embd_bytes == 49152 * 576 // 32 * 34
    assert weights.tied
    assert weights.type_bytes == (("Q4_1", 66_355_200), ("Q8_0", 30_081_024), ("F32", 140_544))


@pytest.mark.parametrize("name", MODELS)
def test_parts_of_the_weights_make_up_the_whole(name, tmp_path):
    """Every tensor belongs to one part: embeddings, layers, output head and its norm."""
    dims = MODELS[name]
    shape, weights = shape_of([header_of_file(write_sparse(tmp_path / "m.gguf", dims))])
    parts = weights.token_embd_bytes + weights.output_bytes + sum(weights.layer_bytes)

    assert weights.total_bytes - parts == 4 * dims.n_embd
    assert weights.tied == dims.tied
    assert len(weights.layer_bytes) == len(shape.layers) == dims.n_layer
    assert (sum(weights.expert_bytes) > 0) == (dims.moe is not None)
    assert all(e < w for e, w in zip(weights.expert_bytes, weights.layer_bytes, strict=True))


def test_a_model_of_experts_alone_has_no_dense_width(tmp_path):
    """Qwen3-30B-A3B's metadata names a dense width that none of its layers has; its tensors decide."""
    shape, _ = shape_of([header_of_file(write_sparse(tmp_path / "m.gguf", MODELS["qwen3-30b-a3b"]))])

    assert (shape.n_ff, shape.n_ff_exp, shape.n_expert, shape.n_expert_used) == (0, 768, 128, 8)


def test_heads_and_widths_can_differ_by_layer():
    """Arrays hold one number a layer, a single number holds for all."""
    kept = layers("deci", attention__head_count=tuple([16] * 6 + [32] * 6), attention__head_count_kv=tuple(range(12)))

    assert [layer.n_head_kv for layer in kept] == list(range(12))
    assert {layer.head_dim_k for layer in kept} == {64}


def test_without_kv_heads_every_head_has_its_own():
    """head_count_kv is optional and then head_count."""
    assert layers("llama", attention__head_count_kv=None)[0].n_head_kv == 16


def test_widths_of_keys_and_values_are_taken_from_their_keys():
    """key_length and value_length overrule the usual n_embd / n_head, in sliding layers the _swa ones."""
    usual = layers("qwen3", attention__key_length=128, attention__value_length=96)[0]
    mixed = layers(
        "gemma4",
        attention__key_length=512,
        attention__value_length=512,
        attention__key_length_swa=256,
        attention__value_length_swa=128,
        attention__sliding_window=1024,
        attention__sliding_window_pattern=tuple(i % 6 != 5 for i in range(12)),
    )

    assert (usual.head_dim_k, usual.head_dim_v) == (128, 96)
    assert (mixed[0].head_dim_k, mixed[0].head_dim_v, mixed[0].window) == (256, 128, 1024)
    assert (mixed[5].head_dim_k, mixed[5].head_dim_v, mixed[5].window) == (512, 512, None)


@pytest.mark.parametrize(
    ("arch", "keys", "expected"),
    [
        ("gemma2", {}, [4096, None] * 6),
        ("gemma2", {"attention__sliding_window": 2048}, [2048, None] * 6),
        ("gemma3", {"attention__sliding_window": 512}, [512, 512, 512, 512, 512, None] * 2),
        ("gemma3", {}, [None] * 12),
        ("gpt-oss", {"attention__sliding_window": 128}, [128, None] * 6),
        ("cohere2", {"attention__sliding_window": 4096}, [4096, 4096, 4096, None] * 3),
        ("smallthinker", {"attention__sliding_window": 512}, [None, 4096, 4096, 4096] * 3),
        ("llama4", {}, [8192, 8192, 8192, None] * 3),
        ("llama4", {"attention__sliding_window": 0}, [None] * 12),
        ("exaone4", {"attention__sliding_window": 4096}, [None] * 12),
        ("phi3", {"attention__sliding_window": 2047}, [None] * 12),
        ("llama", {"attention__sliding_window": 4096}, [None] * 12),
        ("gemma3", {"attention__sliding_window": 512, "attention__sliding_window_pattern": 2}, [512, None] * 6),
        (
            "newcomer",
            {"attention__sliding_window": 64, "attention__sliding_window_pattern": (True, True, False) * 4},
            [64, 64, None] * 4,
        ),
        ("newcomer", {"attention__sliding_window": 64}, [None] * 12),
    ],
)
def test_windows_slide_where_llama_cpp_lets_them(arch, keys, expected):
    """The pattern is the file's own, else the architecture's; others keep the whole context whatever the file says."""
    assert windows(arch, **keys) == expected


def test_exaone4_slides_only_in_its_64_layer_model():
    """llama.cpp gives EXAONE 4 windows at 64 layers (the 32B model) alone."""
    assert windows("exaone4", block_count=64)[:4] == [4096, 4096, 4096, None]


def test_mla_keeps_one_compressed_key_and_no_values():
    """DeepSeek's cache is 576 wide: the key alone, out of which values are taken."""
    kept = layers(
        "deepseek2",
        attention__head_count_kv=1,
        attention__key_length=576,
        attention__value_length=512,
        attention__key_length_mla=192,
        attention__value_length_mla=128,
    )

    assert kept[0] == LayerShape(n_head_kv=1, head_dim_k=576, head_dim_v=0)


def test_an_older_deepseek_file_keeps_full_heads():
    """Files from before MLA have keys and values of every head."""
    kept = layers("deepseek2", attention__head_count_kv=16, attention__key_length=192, attention__value_length=128)

    assert kept[0] == LayerShape(n_head_kv=16, head_dim_k=192, head_dim_v=128)


def test_draft_layers_count_neither_as_layers_nor_as_weights():
    """GLM-4.5's last block predicts further tokens; llama.cpp loads it for speculation only."""
    tensors = [tensor(f"blk.{layer}.ffn_down.weight", 2048, 1024) for layer in range(12)]
    shape, weights = shape_of([header("glm4moe", tensors, nextn_predict_layers=1)])

    assert shape.n_layer == len(shape.layers) == len(weights.layer_bytes) == 11
    assert weights.total_bytes == 11 * 2 * 2048 * 1024


def test_layers_that_share_a_cache_have_none_of_their_own():
    """Gemma 3n's and Gemma 4's last layers read the cache of earlier ones."""
    shared = layers("gemma4", attention__shared_kv_layers=5)

    assert [bool(layer.n_head_kv) for layer in shared] == [True] * 7 + [False] * 5


def test_recurrent_layers_keep_a_state_instead_of_a_cache():
    """Qwen3-Next: three of four layers keep convolution and state, F32, whatever the context."""
    kept = layers(
        "qwen3next",
        ssm__conv_kernel=4,
        ssm__inner_size=4096,
        ssm__state_size=128,
        ssm__group_count=16,
        ssm__time_step_rank=32,
    )
    state = 4 * (3 * (4096 + 2 * 16 * 128) + 128 * 4096)

    assert kept[:3] == (LayerShape(state_bytes=state),) * 3
    assert kept[3] == LayerShape(n_head_kv=4, head_dim_k=64, head_dim_v=64)


def test_hybrid_layers_are_told_by_their_missing_kv_heads():
    """Jamba, Granite 4 and LFM2 mark recurrent layers with no KV heads."""
    kept = layers("lfm2", attention__head_count_kv=tuple([0, 0, 8] * 4), shortconv__l_cache=3)

    assert kept[0] == LayerShape(state_bytes=4 * 1024 * 2)
    assert kept[2] == LayerShape(n_head_kv=8, head_dim_k=64, head_dim_v=64)


def test_falcon_h1_keeps_both_in_every_layer():
    """Attention and a state side by side."""
    kept = layers("falcon-h1", ssm__conv_kernel=4, ssm__inner_size=1024, ssm__state_size=128, ssm__group_count=1)

    assert kept[0].n_head_kv == 4
    assert kept[0].state_bytes == 4 * (3 * (1024 + 256) + 128 * 1024)


def test_a_model_without_attention_is_a_state_alone():
    """RWKV and Mamba have no heads, and nothing that grows with the context."""
    kept = layers("rwkv7", attention__head_count=None, attention__head_count_kv=None, wkv__head_size=64)

    assert kept == (LayerShape(state_bytes=4 * (2 * 1024 + 1024 * 64)),) * 12


def test_models_that_encode_keep_nothing():
    """BERT has no cache."""
    assert layers("bert") == (LayerShape(),) * 12


def test_shards_are_one_model():
    """Tensors of all shards count; metadata is the first one's."""
    first = header("llama", [tensor("token_embd.weight", 1024, 500)], {"split.count": 2})
    second = GgufHeader(3, {"split.no": 1}, (tensor("blk.0.ffn_down.weight", 2048, 1024),), 64, 64)
    shape, weights = shape_of([first, second])

    assert (shape.n_vocab, shape.n_ff) == (500, 2048)
    assert weights.total_bytes == 2 * 1024 * 500 + 2 * 2048 * 1024


def test_a_missing_shard_is_named_with_both_counts():
    """A part of a model is none."""
    with pytest.raises(ShapeUnknown, match="1 of 3 shards"):
        shape_of([header("llama", general={"split.count": 3})])


def test_the_vocabulary_is_counted_where_there_is_no_embedding_table():
    """The tokenizer's list, long or short, else the key."""
    tokens = {"tokenizer.ggml.tokens": ArrayInfo("string", 32_000)}

    assert shape_of([header("llama", general=tokens)])[0].n_vocab == 32_000
    assert shape_of([header("llama", general={"tokenizer.ggml.tokens": ("a", "b")})])[0].n_vocab == 2
    assert shape_of([header("llama", vocab_size=77)])[0].n_vocab == 77


def test_tensors_of_unknown_type_stand_in_the_list_by_name():
    """What an engine cannot load is seen in `type_bytes`, for the resolver to refuse."""
    odd = TensorInfo("blk.0.ffn_down.weight", (256,), 139, 0, 144)
    _, weights = shape_of([header("llama", [odd])])

    assert weights.type_bytes == (("IQ4_K", 144),)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (GgufHeader(3, {}, (), 0, 0), "names no architecture"),
        (header("llama", block_count=None), "no llama.block_count"),
        (header("llama", embedding_length=None), "no llama.embedding_length"),
        (header("llama", attention__head_count=None), "no llama.attention.head_count"),
        (header("llama", attention__head_count=0), "0 attention heads"),
        (header("llama", block_count=100_000), "100000 layers"),
        (header("llama", block_count=0), "0 layers"),
        (header("llama", nextn_predict_layers=12), "12 layers"),
        (header("llama", block_count=-1), "block_count is -1"),
        (header("llama", embedding_length="wide"), "embedding_length is 'wide'"),
        (header("llama", attention__head_count_kv=(4, 4)), "2 items for 12 layers"),
        (header("llama", attention__head_count_kv=ArrayInfo("int32", 5000)), "head_count_kv is"),
        (header("clip", block_count=None), "no clip.block_count"),
    ],
)
def test_impossible_dimensions_are_refused(made, says):
    """A projector, a vocabulary, a hostile file: a sentence instead of a shape."""
    with pytest.raises(ShapeUnknown, match=says):
        shape_of([made])


def test_no_headers_are_no_model():
    """There is always a first shard."""
    with pytest.raises(ShapeUnknown):
        shape_of([])


_ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(-2, 40), max_size=14).map(tuple),
    st.just(ArrayInfo("int32", 2000)),
)
_KEYS = [
    "block_count",
    "embedding_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.shared_kv_layers",
    "attention.recurrent_layers",
    "ssm.conv_kernel",
    "ssm.inner_size",
    "ssm.state_size",
    "full_attention_interval",
    "expert_used_count",
    "nextn_predict_layers",
    "feed_forward_length",
]
_ARCHITECTURES = ["llama", "gemma3", "qwen3next", "nemotron_h", "gemma3n", "rwkv7", "exaone4", "newcomer"]


@given(st.sampled_from(_ARCHITECTURES), st.dictionaries(st.sampled_from(_KEYS), _ODD, max_size=6))
def test_odd_metadata_gives_a_shape_or_a_sentence(arch, odd):
    """Whatever the values are, nothing but ShapeUnknown comes out, and every layer has its entry."""
    metadata = {"general.architecture": arch} | {f"{arch}.{key}": value for key, value in (COMMON | odd).items()}
    try:
        shape, weights = shape_of([GgufHeader(3, metadata, (), 0, 0)])
    except ShapeUnknown:
        return

    assert len(shape.layers) == len(weights.layer_bytes) == shape.n_layer
    assert all(layer.state_bytes >= 0 and layer.head_dim_k >= 0 for layer in shape.layers)
