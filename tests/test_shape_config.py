"""A model's shape and parameters from its config.json: the same as from a GGUF header, and as many as its makers say.

The configs in data/configs were written down without a network, and are held to the published parameter counts: one
wrong dimension, or one forgotten tensor, would show there.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrun.model import LayerShape
from qrun.shape import ShapeUnknown, shape_of
from qrun.shape_config import params_of_config, shape_of_config
from qrun.weights_formula import params_of
from sparse_gguf import MODELS, write_sparse
from test_gguf_header import header_of_file
from test_shape import header, tensor

CONFIGS = {
    path.stem: json.loads(path.read_text()) for path in sorted(Path(__file__).parent.glob("data/configs/*.json"))
}
HEADERS = {  # the model's name in sparse_gguf -> its config
    name: name
    for name in (
        *("llama-3-8b", "llama-3.2-1b", "llama-3.3-70b", "qwen3-8b", "qwen3-30b-a3b", "qwen3-0.6b", "qwen2.5-0.5b"),
        *("gemma-2-9b", "gemma-3-27b", "gemma-3-1b", "phi-4", "gpt-oss-20b"),
    )
} | {"mistral-nemo": "mistral-nemo-2407", "mixtral-8x7b": "mixtral-8x7b-v0.1"}

LLAMA = CONFIGS["llama-3-8b"]["config"]


def config(name: str, **changes) -> dict:
    """A published config with some values changed."""
    return CONFIGS[name]["config"] | changes


@pytest.mark.parametrize("name", CONFIGS)
def test_a_published_model_has_its_published_number_of_parameters(name):
    """Every tensor is counted once: the sum is the figure on the model's page, to one part in a thousand."""
    published = CONFIGS[name]

    assert params_of_config(published["config"]).total == pytest.approx(published["published_params"], rel=1e-3)


@pytest.mark.parametrize("name", HEADERS)
def test_config_and_header_of_one_model_give_one_shape(name, tmp_path):
    """Whichever was read, the same ModelShape comes out, and the same parameters of every layer."""
    found = header_of_file(write_sparse(tmp_path / "m.gguf", MODELS[name]))
    shape, weights = shape_of([found])
    published = CONFIGS[HEADERS[name]]["config"]

    # The sparse headers all say 131072; the context has tests of its own.
    assert replace(shape_of_config(published), n_ctx_train=shape.n_ctx_train) == shape
    assert params_of_config(published).experts == params_of(found.tensors, shape.n_layer).experts
    assert params_of_config(published).total == pytest.approx(weights.n_params, rel=1e-4)


def test_smollm2_has_the_same_shape_by_config_and_by_its_own_header(smollm2_q4_1):
    """A real file and its repo's config agree in everything."""
    found = header_of_file(smollm2_q4_1)
    shape, weights = shape_of([found])

    assert shape_of_config(config("smollm2-135m")) == shape
    assert params_of_config(config("smollm2-135m")) == params_of(found.tensors, shape.n_layer)
    assert params_of_config(config("smollm2-135m")).total == weights.n_params


# The keys that llama.cpp's converter writes for models whose layers are not all alike.
EXPLICIT = {
    "deepseek-v3": (
        "deepseek2",
        {
            "block_count": 61,
            "embedding_length": 7168,
            "attention__head_count": 128,
            "attention__head_count_kv": 1,
            "attention__key_length": 576,
            "attention__value_length": 512,
            "attention__key_length_mla": 192,
            "attention__value_length_mla": 128,
            "context_length": 163840,
            "expert_count": 256,
            "expert_used_count": 8,
        },
        {"ffn_down": (18432, 7168), "ffn_down_exps": (2048, 7168, 256)},
        (7168, 129280),
    ),
    "granite-4.0-h-tiny": (
        "granitehybrid",
        {
            "block_count": 40,
            "embedding_length": 1536,
            "attention__head_count": 12,
            "attention__head_count_kv": tuple(4 if layer in (5, 15, 25, 35) else 0 for layer in range(40)),
            "context_length": 1048576,
            "expert_count": 64,
            "expert_used_count": 6,
            "ssm__conv_kernel": 4,
            "ssm__state_size": 128,
            "ssm__group_count": 1,
            "ssm__inner_size": 3072,
            "ssm__time_step_rank": 48,
        },
        {"ffn_down_exps": (512, 1536, 64)} | {"ssm_in": (1536, 6448), "ssm_conv1d": (4, 3328), "ssm_out": (3072, 1536)},
        (1536, 100352),
    ),
    "lfm2-1.2b": (
        "lfm2",
        {
            "block_count": 16,
            "embedding_length": 2048,
            "attention__head_count": 32,
            "attention__head_count_kv": tuple(8 if layer in (2, 5, 8, 10, 12, 14) else 0 for layer in range(16)),
            "context_length": 128000,
            "shortconv__l_cache": 3,
        },
        {"ffn_down": (8192, 2048), "shortconv.in_proj": (2048, 6144), "shortconv.out_proj": (2048, 2048)},
        (2048, 65536),
    ),
    "falcon-h1-0.5b": (
        "falcon-h1",
        {
            "block_count": 36,
            "embedding_length": 1024,
            "attention__head_count": 8,
            "attention__head_count_kv": 2,
            "attention__key_length": 64,
            "attention__value_length": 64,
            "context_length": 16384,
            "ssm__conv_kernel": 4,
            "ssm__state_size": 128,
            "ssm__group_count": 1,
            "ssm__inner_size": 1536,
            "ssm__time_step_rank": 24,
        },
        {"ffn_down": (2048, 1024), "ssm_in": (1024, 3352), "ssm_conv1d": (4, 1792), "ssm_out": (1536, 1024)},
        (1024, 32784),
    ),
    "qwen3-next-80b-a3b": (
        "qwen3next",
        {
            "block_count": 49,  # with the layer that predicts further tokens
            "nextn_predict_layers": 1,
            "embedding_length": 2048,
            "attention__head_count": 16,
            "attention__head_count_kv": 2,
            "attention__key_length": 256,
            "attention__value_length": 256,
            "context_length": 262144,
            "expert_count": 512,
            "expert_used_count": 10,
            "full_attention_interval": 4,
            "ssm__conv_kernel": 4,
            "ssm__state_size": 128,
            "ssm__group_count": 16,
            "ssm__inner_size": 4096,
            "ssm__time_step_rank": 32,
        },
        {"ffn_down_exps": (512, 2048, 512), "attn_qkv": (2048, 8192), "ssm_conv1d": (4, 8192)},
        (2048, 151936),
    ),
    "nvidia-nemotron-nano-9b-v2": (
        "nemotron_h",
        {
            "block_count": 56,
            "embedding_length": 4480,
            "attention__head_count": 40,
            "attention__head_count_kv": tuple(8 if layer in (14, 21, 30, 39) else 0 for layer in range(56)),
            "attention__key_length": 128,
            "attention__value_length": 128,
            "context_length": 1048576,
            "feed_forward_length": tuple(
                15680 if part == "-" else 0 for part in "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-"
            ),
            "ssm__conv_kernel": 4,
            "ssm__state_size": 128,
            "ssm__group_count": 8,
            "ssm__inner_size": 10240,
            "ssm__time_step_rank": 128,
        },
        {"ffn_up": (4480, 15680), "ffn_down": (15680, 4480)}
        | {"ssm_in": (4480, 22656), "ssm_conv1d": (4, 12288), "ssm_out": (10240, 4480)},
        (4480, 131072),
    ),
    "olmo-3-7b": (
        "olmo2",
        {
            "block_count": 32,
            "embedding_length": 4096,
            "attention__head_count": 32,
            "attention__head_count_kv": 32,
            "context_length": 65536,
            "attention__sliding_window": 4096,
            "attention__sliding_window_pattern": (1, 1, 1, 0) * 8,
        },
        {"ffn_down": (11008, 4096)},
        (4096, 100278),
    ),
    "c4ai-command-r7b-12-2024": (
        "cohere2",
        {
            "block_count": 32,
            "embedding_length": 4096,
            "attention__head_count": 32,
            "attention__head_count_kv": 8,
            "attention__key_length": 128,
            "attention__value_length": 128,
            "context_length": 8192,
            "attention__sliding_window": 4096,
        },
        {"ffn_down": (14336, 4096)},
        (4096, 256000),
    ),
    "glm-4.5-air": (
        "glm4moe",
        {
            "block_count": 47,
            "nextn_predict_layers": 1,
            "embedding_length": 4096,
            "attention__head_count": 96,
            "attention__head_count_kv": 8,
            "attention__key_length": 128,
            "attention__value_length": 128,
            "context_length": 131072,
            "expert_count": 128,
            "expert_used_count": 8,
        },
        {"ffn_down": (10944, 4096), "ffn_down_exps": (1408, 4096, 128)},
        (4096, 151552),
    ),
}


@pytest.mark.parametrize("name", EXPLICIT)
def test_hybrids_experts_and_windows_are_those_of_the_header(name):
    """MLA, recurrent layers, windows by layer, leading dense layers and draft layers: as the converter's keys say."""
    architecture, keys, rows, table = EXPLICIT[name]
    tensors = [tensor(f"blk.0.{part}.weight", *dims) for part, dims in rows.items()]
    shape, _ = shape_of([header(architecture, [*tensors, tensor("token_embd.weight", *table)], **keys)])

    assert shape_of_config(config(name)) == shape


@pytest.mark.parametrize(
    ("name", "n_ctx"),
    [
        ("llama-3-8b", 8192),
        ("llama-3.2-1b", 131072),  # RoPE stretched from 8192
        ("qwen3-8b", 40960),  # YaRN is the user's to switch on
        ("gpt-oss-20b", 131072),  # YaRN from 4096
        ("phi-4-mini", 131072),  # LongRoPE from 4096
        ("gemma-3-27b", 131072),  # not in the config: the default
        ("deepseek-v3", 163840),
        ("c4ai-command-r-v01", 131072),  # model_max_length, not the 8192 of its positions
        ("granite-4.0-h-tiny", 1048576),  # no RoPE: the converter writes 2**20
    ],
)
def test_the_context_is_what_a_gguf_of_the_model_says(name, n_ctx):
    """Stretched RoPE changes nothing: both name the stretched length."""
    assert shape_of_config(config(name)).n_ctx_train == n_ctx


def test_a_vision_model_is_read_by_its_language_part():
    """Mistral Small 3.1 sees images; its `text_config` is what runs, and its tower is not counted."""
    shape = shape_of_config(config("mistral-small-3.1-24b-2503"))

    assert (shape.architecture, shape.n_layer, shape.n_embd) == ("llama", 40, 5120)
    assert set(shape.layers) == {LayerShape(8, 128, 128)}


def test_gemma_3_leaves_its_usual_numbers_out():
    """The 4B's config states neither heads nor their width; transformers' defaults hold."""
    shape = shape_of_config(config("gemma-3-4b"))

    assert (shape.n_head, shape.n_vocab) == (8, 262144)
    assert [layer.window for layer in shape.layers[:7]] == [1024] * 5 + [None, 1024]
    assert set(shape.layers) == {LayerShape(4, 256, 256, window=1024), LayerShape(4, 256, 256)}


def test_a_window_that_llama_cpp_ignores_is_no_window():
    """Mistral, Phi and Qwen 2 name windows that llama.cpp's cache does not use."""
    for name in ("phi-4-mini", "qwen2.5-7b"):
        assert {layer.window for layer in shape_of_config(config(name)).layers} == {None}
    assert shape_of_config(config("llama-3-8b", model_type="mistral", sliding_window=4096)).layers[0].window is None


def test_shared_experts_and_leading_dense_layers_are_in_the_layers():
    """DeepSeek-V3's first three layers are dense; its shared expert is in all others, but is no routed one."""
    params = params_of_config(config("deepseek-v3"))

    assert params.experts[:4] == (0, 0, 0, 256 * 3 * 7168 * 2048)
    assert params.layers[3] - params.experts[3] > 3 * 7168 * 2048
    assert len(set(params.layers[3:])) == 1


def test_a_granite_4_without_mamba_is_a_plain_granite():
    """One model_type, several architectures: what the layers are decides, as in the converter."""
    types = ["attention"] * 40
    dense = config("granite-4.0-h-tiny", layer_types=types, num_local_experts=0, num_experts_per_tok=0)
    moe = config("granite-4.0-h-tiny", layer_types=types)

    assert shape_of_config(dense).architecture == "granite"
    assert shape_of_config(dense).n_ff == 1024
    assert shape_of_config(moe).architecture == "granitemoe"


def test_nemotron_s_layers_can_be_told_in_words():
    """Newer configs list `layers_block_type` where older ones have a word of letters."""
    words = {"M": "mamba", "*": "attention", "-": "mlp"}
    pattern = config("nvidia-nemotron-nano-9b-v2")["hybrid_override_pattern"]
    told = config(
        "nvidia-nemotron-nano-9b-v2", hybrid_override_pattern=None, layers_block_type=[words[part] for part in pattern]
    )

    assert shape_of_config(told) == shape_of_config(config("nvidia-nemotron-nano-9b-v2"))


def test_gemma_4_has_wide_heads_where_it_sees_everything():
    """Heads of 512 there and of 256 with a window; the last layers read the caches of earlier ones."""
    dense, small = shape_of_config(config("gemma-4-31b")), shape_of_config(config("gemma-4-e4b"))

    assert set(dense.layers) == {LayerShape(16, 256, 256, window=1024), LayerShape(4, 512, 512)}
    assert [layer.n_head_kv for layer in small.layers] == [2] * 24 + [0] * 18


def test_tables_with_a_row_for_each_layer_are_further_inputs():
    """Gemma 3n's per-layer embeddings stay in RAM with the usual ones: a third of its weights."""
    params = params_of_config(config("gemma-3n-e4b"))

    assert params.other_input == 35 * 256 * 262144
    assert params.output == 0


def test_qwen3_vl_is_named_as_llama_cpp_names_it():
    """Nested and renamed: `qwen3_vl_text` within `qwen3_vl`, tied as its own part says."""
    part = config("qwen3-8b", model_type="qwen3_vl_text", tie_word_embeddings=True)
    shape = shape_of_config({"model_type": "qwen3_vl", "tie_word_embeddings": False, "text_config": part})

    assert shape.architecture == "qwen3vl"
    assert params_of_config({"model_type": "qwen3_vl", "text_config": part}).output == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "brand_new"}, "its model_type is 'brand_new'"),
        ({"model_type": None}, "its model_type is 'None'"),
        ({"hidden_size": None}, "no hidden_size"),
        ({"num_hidden_layers": 0}, "it has 0 layers"),
        ({"num_hidden_layers": 10**6}, "it has 1000000 layers"),
        ({"num_attention_heads": "many"}, "num_attention_heads is 'many'"),
        ({"vocab_size": -1}, "vocab_size is -1"),
        ({"hidden_size": 10**12}, "hidden_size is 1000000000000"),
        ({"intermediate_size": [1, 2]}, "2 items of intermediate_size for 32 layers"),
    ],
)
def test_a_config_that_lacks_or_overstates_a_dimension_is_refused(changes, words):
    """No guess: the one thing that is wrong is named."""
    with pytest.raises(ShapeUnknown, match=words):
        shape_of_config(LLAMA | changes)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("granite-4.0-h-tiny", {"layer_types": ["mamba"]}),
        ("nvidia-nemotron-nano-9b-v2", {"hybrid_override_pattern": "M*"}),
        ("olmo-3-7b", {"layer_types": ["sliding_attention"]}),
        ("qwen3-next-80b-a3b", {"linear_num_value_heads": None}),
    ],
)
def test_a_hybrid_whose_layers_are_not_told_is_refused(name, changes):
    """A pattern that is shorter than the model, or a part of it that is missing, is no shape."""
    with pytest.raises(ShapeUnknown):
        shape_of_config(config(name, **changes))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.sampled_from(sorted(CONFIGS)),
    st.dictionaries(
        st.sampled_from(sorted({key for one in CONFIGS.values() for key in one["config"]})), JSON, max_size=3
    ),
)
def test_whatever_a_config_says_the_answer_is_a_shape_or_shape_unknown(name, changes):
    """A stranger's JSON raises nothing else."""
    try:
        shape = shape_of_config(config(name, **changes))
    except ShapeUnknown:
        return

    assert len(shape.layers) == shape.n_layer
