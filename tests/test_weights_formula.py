"""A file's bytes by part from its size, its label and the model's parameters, held against real headers.

data/quant_mixes.tsv has what llama-quantize makes of models of real dimensions; SmolLM2's files are real.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrun.memory import memory_need
from qrun.model import FORMATS, Candidate, ModelShape, Weights
from qrun.placement import Placement
from qrun.quality import expected_quality
from qrun.shape import shape_of
from qrun.shape_config import params_of_config, shape_of_config
from qrun.speed import active_bytes, relative_efficiency
from qrun.weights_formula import Params, contradicts_label, params_of, params_of_shape, weights_by_formula
from sparse_gguf import MODELS, write_sparse
from test_gguf_header import header_of_file
from test_shape_config import CONFIGS

VOCABULARY_BYTES = 40  # a token, in the middle of what real files have: what a size counts beside the tensors
MADE_WITHOUT_IMATRIX = ("IQ2_XXS", "IQ2_M")  # nobody publishes these so; their rows are for the bytes alone


@cache
def known(model: str) -> tuple[ModelShape, Params]:
    """A published model's shape and parameters, by its config."""
    published = CONFIGS[model]["config"]
    return shape_of_config(published), params_of_config(published)


@dataclass(frozen=True)
class Mix:
    """What llama-quantize made of one model at one label."""

    model: str
    label: str
    weights: Weights

    @property
    def shape(self) -> ModelShape:
        """By its config."""
        return known(self.model)[0]

    @property
    def params(self) -> Params:
        """By its config."""
        return known(self.model)[1]

    def by_formula(self) -> Weights:
        """The same file as a listing shows it: its size and its label."""
        size_bytes = self.weights.total_bytes + VOCABULARY_BYTES * self.shape.n_vocab
        return weights_by_formula(
            self.shape, format="gguf", quant=self.label, size_bytes=size_bytes, params=self.params
        )

    def candidate(self, weights: Weights) -> Candidate:
        """One with these weights."""
        return Candidate(
            *("some/repo", "c0ffee", "some", "base/model", (), "gguf", self.label), shape=self.shape, weights=weights
        )


def mixes() -> list[Mix]:
    """The rows of quant_mixes.tsv; layers share the bytes evenly, as their sums alone were recorded."""
    lines = (Path(__file__).parent / "data" / "quant_mixes.tsv").read_text().splitlines()
    keys = lines[1].split("\t")
    return [_mix(dict(zip(keys, line.split("\t"), strict=True))) for line in lines[2:]]


def _mix(row: Mapping[str, str]) -> Mix:
    n_layer = known(row["model"])[0].n_layer
    numbers = {key: int(value) for key, value in row.items() if key not in ("model", "label", "types")}
    types = tuple((name, int(size)) for name, size in (pair.split(":") for pair in row["types"].split(",")))
    layers, experts = (_even(numbers[part], n_layer) for part in ("layers", "experts"))
    weights = Weights(
        *(numbers["total"], numbers["n_params"], numbers["token_embd"], numbers["output"], layers, experts, types),
        largest_bytes=numbers["largest"],
    )
    return Mix(row["model"], row["label"], weights)


def _even(total: int, n: int) -> tuple[int, ...]:
    return (total - total // n * (n - 1), *[total // n] * (n - 1))


MIXES = mixes()
each_mix = pytest.mark.parametrize("mix", MIXES, ids=lambda mix: f"{mix.model}-{mix.label}")


def on_gpu(shape: ModelShape, weights: Weights, n_ctx: int = 8192) -> int:
    """The bytes of a whole placement on one GPU."""
    whole = Placement("gpu", shape.n_layer + 1, 0, None)
    return memory_need(shape, weights, whole, n_ctx=n_ctx, n_parallel=1, kv_cache_type="f16").total_bytes


@each_mix
def test_memory_on_a_gpu_is_within_two_percent_of_the_header_s(mix):
    """Embeddings stay in RAM: their share must be right for what the GPU holds to be right."""
    by_header, by_formula = on_gpu(mix.shape, mix.weights), on_gpu(mix.shape, mix.by_formula())

    assert by_formula == pytest.approx(by_header, rel=0.02)


@each_mix
def test_parameters_are_the_header_s_and_the_total_is_the_size(mix):
    """What is known exactly stays exact."""
    found = mix.by_formula()

    assert found.n_params == pytest.approx(mix.weights.n_params, rel=1e-5)
    assert found.total_bytes == mix.weights.total_bytes + VOCABULARY_BYTES * mix.shape.n_vocab
    assert sum(size for _, size in found.type_bytes) == found.total_bytes
    assert found.tied == mix.weights.tied
    assert found.estimated


@each_mix
def test_embeddings_and_output_are_of_the_label_s_types(mix):
    """To the byte: llama-quantize's rules for them hang on label and row length alone."""
    found = mix.by_formula()

    assert found.token_embd_bytes == mix.weights.token_embd_bytes
    assert found.output_bytes == mix.weights.output_bytes


@each_mix
def test_experts_have_what_attention_leaves(mix):
    """What --n-cpu-moe moves, to 2 %; without experts nothing."""
    found, header = sum(mix.by_formula().expert_bytes), sum(mix.weights.expert_bytes)

    assert found == pytest.approx(header, rel=0.02)


@each_mix
def test_quality_and_speed_are_nearly_those_by_header(mix):
    """The goal must not choose otherwise because a header was not read: 5 % of KLD, 4 % of decode time."""
    weights = (mix.weights, mix.by_formula())
    kld_by_header, kld = (expected_quality(mix.candidate(one)).kld for one in weights)
    time_by_header, time = (active_bytes(mix.shape, one) / relative_efficiency(one, "gpu") for one in weights)

    if mix.label not in MADE_WITHOUT_IMATRIX:
        assert kld == pytest.approx(kld_by_header, rel=0.05)
    assert time == pytest.approx(time_by_header, rel=0.05)


@pytest.mark.parametrize("n_ctx", [512, 8192])
def test_a_real_small_file_comes_out_within_two_percent(smollm2_q4_1, n_ctx):
    """SmolLM2-135M: a third of it is embeddings, and its rows of 576 take Q8_0 for them whatever the label."""
    shape, weights = shape_of([header_of_file(smollm2_q4_1)])
    found = weights_by_formula(
        shape,
        format="gguf",
        quant="Q4_1",
        size_bytes=smollm2_q4_1.stat().st_size,
        params=params_of_config(CONFIGS["smollm2-135m"]["config"]),
    )

    assert found.token_embd_bytes == weights.token_embd_bytes
    assert on_gpu(shape, found, n_ctx) == pytest.approx(on_gpu(shape, weights, n_ctx), rel=0.02)


def by_label(model: str, label: str, size_bytes: int, *, format_: str = "gguf", **more) -> Weights:
    """The parts of a file of `size_bytes` of a published model."""
    shape, params = known(model)
    return weights_by_formula(shape, format=format_, quant=label, size_bytes=size_bytes, **{"params": params, **more})


def test_gpt_oss_keeps_its_experts_in_mxfp4_at_every_label():
    """ggml-org's file of 12.1 GB and a Q4_K_S of 11.6 GB: the experts are the same bytes in both."""
    native, smaller = (
        by_label("gpt-oss-20b", "MXFP4", 12_109_565_632),
        by_label("gpt-oss-20b", "Q4_K_S", 11_600_000_000),
    )

    assert sum(native.expert_bytes) == sum(smaller.expert_bytes)
    assert native.type_bytes[0] == smaller.type_bytes[0]
    assert native.type_bytes[0][0] == "MXFP4"


def test_gpt_oss_made_anew_from_bf16_has_experts_of_its_label():
    """A Q4_K_M of 15.8 GB leaves attention 40 bits per weight beside MXFP4 experts: it has none."""
    weights = by_label("gpt-oss-20b", "Q4_K_M", 15_800_000_000)

    assert "MXFP4" not in dict(weights.type_bytes)


def test_a_label_with_large_embeddings_has_them_in_q8_0():
    """Of bartowski: Q4_K_L is Q4_K_M with embeddings and head in Q8_0; both 8B files are of published sizes."""
    large, plain = by_label("llama-3-8b", "Q4_K_L", 5_310_637_824), by_label("llama-3-8b", "Q4_K_M", 4_920_738_944)

    assert large.token_embd_bytes == large.output_bytes == 128256 * 4096 // 32 * 34
    assert sum(large.layer_bytes) == pytest.approx(sum(plain.layer_bytes), rel=0.002)


def test_a_label_without_its_suffix_means_the_medium_mix():
    """As llama-quantize has it: Q4_K is Q4_K_M."""
    assert by_label("llama-3-8b", "Q4_K", 4_920_738_944) == by_label("llama-3-8b", "Q4_K_M", 4_920_738_944)


def test_a_large_label_on_a_file_too_small_for_it_is_the_plain_mix():
    """Unsloth's Q2_K_L is 3 % larger than Q2_K: embeddings in Q8_0 would leave its layers fewer bits than Q2_K has."""
    weights = by_label("llama-3-8b", "Q2_K_L", 3_330_000_000)

    assert weights.token_embd_bytes == 128256 * 4096 // 256 * 84


@pytest.mark.parametrize(
    ("format_", "label", "size_bytes", "embeddings_bpw", "output_bpw"),
    [
        ("mlx", "4bit", 4_517_484_000, 4.5, 4.5),
        ("exl2", "4.25bpw", 5_000_000_000, 16, 6),
        ("exl3", "4.0bpw", 4_900_000_000, 16, 6),
        ("awq", "4bit-g128", 5_730_000_000, 16, 16),
        ("gptq", "4bit-g128", 5_740_000_000, 16, 16),
        ("fp8", "fp8", 9_080_000_000, 16, 16),
        ("bnb", "nf4", 5_700_000_000, 16, 16),
        ("safetensors", "bf16", 16_060_522_496, 16, 16),
    ],
)
def test_other_formats_keep_embeddings_as_their_quantizers_do(format_, label, size_bytes, embeddings_bpw, output_bpw):
    """MLX quantizes the table too, EXL keeps it in 16 bits and the head in 6, the others keep both in 16."""
    weights = by_label("llama-3-8b", label, size_bytes, format_=format_)
    table = 128256 * 4096

    assert 8 * weights.token_embd_bytes / table == pytest.approx(embeddings_bpw, rel=0.001)
    assert 8 * weights.output_bytes / table == pytest.approx(output_bpw, rel=0.001)
    assert weights.total_bytes == size_bytes


def test_a_tied_exl_model_keeps_its_table_in_16_bits():
    """The quantized head is for models that have one of their own."""
    weights = by_label("llama-3.2-1b", "4.25bpw", 900_000_000, format_="exl2")

    assert weights.token_embd_bytes == 128256 * 2048 * 2
    assert weights.tied


def test_tied_can_be_said_where_parameters_are_not_known():
    """Without a config the shape tells what it can; a table is then not counted twice."""
    shape = shape_of_config(CONFIGS["llama-3.2-1b"]["config"])
    tied = weights_by_formula(shape, format="gguf", quant="Q8_0", size_bytes=1_321_083_008, tied=True)
    untied = weights_by_formula(shape, format="gguf", quant="Q8_0", size_bytes=1_600_000_000)

    assert tied.tied
    assert tied.n_params == 1_235_814_400
    assert untied.output_bytes == untied.token_embd_bytes


@pytest.mark.parametrize(
    "name", ["llama-3-8b", "mistral-nemo-2407", "qwen3-30b-a3b", "gemma-3-27b", "mixtral-8x7b-v0.1"]
)
def test_a_shape_alone_gives_the_parameters_of_usual_models(name):
    """To half a percent; what it cannot tell is small there: norms, biases, routers."""
    published = CONFIGS[name]
    params = params_of_shape(
        shape_of_config(published["config"]), tied=params_of_config(published["config"]).output == 0
    )

    assert params.total == pytest.approx(published["published_params"], rel=0.005)


def test_parameters_can_come_from_any_header_of_the_model(tmp_path):
    """Where no config is to be had, one header serves for all quants: types do not matter."""
    found = header_of_file(write_sparse(tmp_path / "m.gguf", MODELS["qwen3-30b-a3b"]))

    assert params_of(found.tensors, 48) == params_of_config(CONFIGS["qwen3-30b-a3b"]["config"])


@pytest.mark.parametrize(
    ("label", "size_bytes", "is_contradicted"),
    [
        ("Q8_0", 8_541_000_000, False),
        ("Q8_0", 4_900_000_000, True),  # a Q4_K_M
        ("Q4_K_M", 4_920_738_944, False),
        ("Q4_K_M", 16_060_522_496, True),  # in truth 16 bits
        ("UD-Q8_K_XL", 12_050_000_000, False),  # some tensors in BF16
        ("bf16", 16_060_522_496, False),
        ("bf16", 8_541_000_000, True),
        ("unknown", 1_000_000, False),
    ],
)
def test_a_label_that_the_size_contradicts_is_told(label, size_bytes, is_contradicted):
    """Bytes per parameter need no header."""
    why = contradicts_label(by_label("llama-3-8b", label, size_bytes), label)

    assert (why is not None) == is_contradicted
    assert why is None or f"named {label}" in why


@pytest.mark.parametrize(
    ("label", "size_bytes"), [("Q2_K", 11_470_000_000), ("Q8_0", 12_110_000_000), ("F16", 13_792_639_104)]
)
def test_gpt_oss_contradicts_no_label(label, size_bytes):
    """Its quants are named after the few tensors that are not MXFP4; the whole has 4.4 to 5.3 bits per weight."""
    assert contradicts_label(by_label("gpt-oss-20b", label, size_bytes), label) is None


LABELS = (
    *("Q4_K_M", "Q2_K_L", "Q3_K_XL", "UD-Q8_K_XL", "MXFP4_MOE", "IQ1_S", "IQ4_K", "Q8_0", "f32", "unknown"),
    *("4bit", "4.25bpw", "4bit-g128", "bf16", "mxfp4", "nf4", "fp8"),
)


@given(
    st.sampled_from(sorted(CONFIGS)),
    st.sampled_from(FORMATS),
    st.sampled_from(LABELS),
    st.integers(min_value=1, max_value=10**13),
    st.booleans(),
)
def test_parts_are_never_negative_and_never_exceed_the_size(model, format_, label, size_bytes, is_shape_alone):
    """Whatever size a listing names for whatever label."""
    params = None if is_shape_alone else known(model)[1]
    found = by_label(model, label, size_bytes, format_=format_, params=params)
    parts = [found.token_embd_bytes, found.output_bytes, found.other_input_bytes, *found.layer_bytes]

    assert found.total_bytes == size_bytes
    assert min(parts) >= 0
    assert sum(parts) <= size_bytes
    assert all(0 <= expert <= layer for expert, layer in zip(found.expert_bytes, found.layer_bytes, strict=True))
    assert sum(size for _, size in found.type_bytes) == size_bytes
