"""The expected loss: A's own rows where they apply, log-linear between them, the tensors before the label."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candidates import candidate, rows
from qrun.model import Candidate, ModelFile, ModelShape, Weights
from qrun.quality import KV_TYPE_KLD, expected_quality, interpolated

# Of the table that all figures rest on (source A), as published for Llama-3-8B.
PUBLISHED = {
    ("Q8_0", True): 0.001355,
    ("Q6_K", True): 0.005452,
    ("Q5_K_M", True): 0.010762,
    ("Q4_K_M", True): 0.028152,
    ("Q4_K_M", False): 0.031273,
    ("Q4_K_S", False): 0.043136,
    ("IQ4_XS", True): 0.036334,
    ("Q3_K_M", True): 0.084358,
    ("IQ2_XXS", True): 0.812022,
    ("Q4_0", False): 0.071940,
    ("Q4_1", False): 0.071683,
    ("Q5_0", False): 0.022239,
    ("Q2_K", False): 0.445132,
}


def resized(one, factor):
    """The candidate with layers of `factor` times the bytes, its label kept."""
    layers = tuple(int(size * factor) for size in one.weights.layer_bytes)
    added = sum(layers) - sum(one.weights.layer_bytes)
    return replace(one, weights=replace(one.weights, layer_bytes=layers, total_bytes=one.weights.total_bytes + added))


def bare(quant, format_="gguf"):
    """A candidate of which only label and format are known."""
    return Candidate("o/r", None, None, "o/m", (ModelFile("f", 1),), format_, quant)


@pytest.mark.parametrize(("quant", "has_imatrix"), PUBLISHED)
def test_the_layers_of_a_published_row_give_its_figure(quant, has_imatrix):
    """A file that is what source A measured has A's figure, and the source is named."""
    publisher = "bartowski" if has_imatrix else "QuantFactory"

    quality = expected_quality(candidate(quant, publisher=publisher, has_imatrix=has_imatrix))

    assert quality.kld == pytest.approx(PUBLISHED[quant, has_imatrix], abs=1e-6)
    assert quality.source == f"A: {quant} of Llama-3-8B"


def test_a_file_smaller_than_its_label_promises_is_worse():
    """The bytes decide: a Q4_K_M whose layers hold a tenth less is no Q4_K_M."""
    honest = candidate("Q4_K_M")

    quality = expected_quality(resized(honest, 0.9))

    assert quality.kld > 1.2 * expected_quality(honest).kld
    assert "interpolated" in quality.source


def test_the_tensor_types_decide_the_family_not_the_label():
    """A `Q2_K` whose rows do not divide by 256 holds 32-wide types, and loses what those lose."""
    weights = replace(candidate("Q4_0", publisher="QuantFactory").weights, type_bytes=(("Q4_0", 90), ("F32", 10)))
    labelled = candidate("Q2_K", weights=weights, has_imatrix=False)

    assert expected_quality(labelled).kld == pytest.approx(0.0719, abs=0.001)


def test_a_model_trained_in_mxfp4_keeps_its_own_tensors_whole():
    """gpt-oss in `Q2_K` keeps its MXFP4 experts: it is near its original, not near a 2-bit quant."""
    shape = ModelShape("gpt-oss", 24, 2880, 64, 2880, 201088, 131072, ())
    types = (("MXFP4", 10_150_000_000), ("Q2_K", 560_000_000))
    weights = Weights(10_710_000_000, 20_914_757_184, 0, 0, (446_250_000,) * 24, (420_000_000,) * 24, types)

    quality = expected_quality(replace(bare("Q2_K"), shape=shape, weights=weights))

    assert quality.kld < 0.1  # a file all of Q2_K: .5
    assert quality.source == "estimate"


def test_mxfp4_made_from_a_wider_model_is_a_4_bit_loss():
    """MXFP4 of a model that was not trained in it loses as 4-bit blocks do."""
    one = candidate("Q4_0", publisher="QuantFactory")
    weights = replace(one.weights, type_bytes=(("MXFP4", 90), ("F32", 10)))

    assert expected_quality(replace(one, quant="MXFP4_MOE", weights=weights)).kld > 0.05


def test_large_embeddings_do_not_buy_quality():
    """`_L` keeps embeddings and output wider: the layers are what they were, and so is the expected loss."""
    one, larger = (candidate(quant, name="Qwen/Qwen2.5-14B-Instruct") for quant in ("Q6_K", "Q6_K_L"))

    assert larger.weights.bpw > one.weights.bpw
    assert expected_quality(larger).kld == expected_quality(one).kld


def test_a_small_model_loses_more_by_the_same_quant():
    """Models of 1B and less lose about 1.8 times what an 8B one does."""
    one = candidate("Q4_K_M")
    scaled = {name: getattr(one.weights, name) // 16 for name in ("total_bytes", "n_params", "output_bytes")}
    small = replace(one.weights, **scaled, layer_bytes=tuple(size // 16 for size in one.weights.layer_bytes))
    shape = replace(one.shape, n_embd=256)

    quality = expected_quality(replace(one, weights=small, shape=shape))

    assert quality.kld == pytest.approx(1.8 * expected_quality(one).kld, rel=0.01)


@pytest.mark.parametrize("quant", sorted({row["quant"] for row in rows()}))
def test_without_an_importance_matrix_no_quant_is_better(quant):
    """The matrix helps or changes nothing."""
    row = next(row for row in rows() if row["quant"] == quant)
    one = candidate(quant, row["model"], row["publisher"])

    with_matrix, without = (expected_quality(replace(one, has_imatrix=im)).kld for im in (True, False))

    assert without >= with_matrix


@settings(deadline=None)
@given(
    quant=st.sampled_from(["Q4_K_M", "IQ3_M", "Q5_0", "Q2_K", "Q8_0", "IQ1_S", "F16"]),
    factors=st.tuples(st.floats(0.5, 2.0), st.floats(0.5, 2.0)),
    has_imatrix=st.booleans(),
)
def test_more_bits_of_the_same_types_are_never_worse(quant, factors, has_imatrix):
    """The curve is monotone, A's own rows included."""
    publisher = "QuantFactory" if quant == "Q5_0" else "bartowski"
    one = candidate(quant, publisher=publisher, has_imatrix=has_imatrix)
    fewer, more = (expected_quality(resized(one, factor)).kld for factor in sorted(factors))

    assert more <= fewer * 1.0000001


def test_between_two_points_the_logarithm_is_a_line():
    """Half way between two widths stands the geometric mean."""
    assert interpolated(((4.0, 0.08), (5.0, 0.02)), 4.5) == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("format_", "quant", "kld", "source"),
    [
        ("exl2", "4.0bpw", 0.08, "B on A's scale"),
        ("exl3", "4.0bpw", 0.021, "B on A's scale"),
        ("awq", "4bit-g128", 0.08, "estimate"),
        ("gptq", "4bit-g128", 0.08, "estimate"),
        ("bnb", "nf4", 0.105, "estimate"),
        ("mlx", "4bit", 0.0719, "estimate"),
        ("mlx", "4bit-DWQ", 0.0479, "estimate"),
        ("safetensors", "bf16", 0.00055, "A: f16"),
        ("gguf", "Q4_K_M", 0.0313, "A: Q4_K_M"),
        ("gguf", "IQ3_M", 0.1025, "A: IQ3_M"),
    ],
)
def test_other_formats_stand_on_the_same_scale(format_, quant, kld, source):
    """EXL2 4.0 reads .08 on A's scale, AWQ and GPTQ count as it; formats without a row say that they are estimates."""
    quality = expected_quality(bare(quant, format_))

    assert quality.kld == pytest.approx(kld, rel=0.02)
    assert quality.source.startswith(source)


def test_a_label_nobody_knows_is_the_worst():
    """What cannot be judged must not win by its unknown quality."""
    assert expected_quality(bare("WHAT")).kld > 5


def test_quantized_kv_caches_cost_something():
    """q8_0 counts .002 KLD (DESIGN section 2); q4_0 more."""
    assert KV_TYPE_KLD["f16"] == 0
    assert KV_TYPE_KLD["q8_0"] == 0.002 < KV_TYPE_KLD["q4_0"]


@pytest.mark.parametrize(
    ("format_", "labels"),
    [
        ("mlx", ["2bit", "3bit", "4bit", "5bit", "6bit", "8bit"]),
        ("exl2", ["2.5bpw", "3.0bpw", "3.5bpw", "4.0bpw", "4.25bpw", "5.0bpw", "6.0bpw"]),
        ("exl3", ["2.0bpw", "2.5bpw", "3.0bpw", "3.5bpw", "4.0bpw", "5.0bpw", "6.0bpw"]),
        ("gptq", ["3bit-g128", "4bit-g128", "8bit-g128"]),
    ],
)
def test_every_formats_loss_falls_with_its_bits(format_, labels):
    """From each width to the next it falls truly: a 3-bit MLX copy is nowhere near its 4-bit one."""
    losses = [expected_quality(bare(label, format_)).kld for label in labels]

    assert all(more < fewer for fewer, more in pairwise(losses))


def test_a_3_bit_mlx_copy_warns():
    """Below Q4_0 the legacy types' loss grows as the K-quants' does: at 3.5 bits it is beyond .3."""
    assert expected_quality(bare("3bit", "mlx")).kld == pytest.approx(0.31, abs=0.02)


def qat(quant, *, base="google/gemma-3-27b-it", format_="gguf"):
    """A copy that calls itself one of weights trained for 4 bits."""
    path = f"google_gemma-3-27b-it-qat-{quant}.gguf"
    return replace(bare(quant, format_), files=(ModelFile(path, 1),), base_model=base)


def test_weights_trained_for_q4_0_lose_less_in_it():
    """Google's measurement: 54 % less than Q4_0 of the plain weights; nearer to Q4_K_M than to Q4_0."""
    assert expected_quality(qat("Q4_0")).kld == pytest.approx(0.46 * expected_quality(bare("Q4_0")).kld)
    assert "QAT" in expected_quality(qat("Q4_0")).source
    assert expected_quality(qat("4bit", format_="mlx")).kld < expected_quality(bare("4bit", "mlx")).kld


def test_weights_trained_for_q4_0_are_never_nearer_to_the_base_than_in_it():
    """A Q8_0 of other weights is no better a copy of the base; where those weights were asked for, it is."""
    same = "google/gemma-3-27b-it-qat-q4_0-unquantized"

    assert expected_quality(qat("Q8_0")).kld == pytest.approx(expected_quality(qat("Q4_0")).kld)
    assert expected_quality(qat("Q3_K_M")).kld == expected_quality(bare("Q3_K_M")).kld
    assert expected_quality(qat("Q8_0", base=same)).kld == expected_quality(bare("Q8_0")).kld


def test_a_name_that_only_holds_the_letters_is_no_qat():
    """`Aquaticat` is a name; `-qat-` is a statement."""
    named = replace(bare("Q4_0"), repo_id="o/Aquaticat-7B-GGUF")

    assert expected_quality(named) == expected_quality(bare("Q4_0"))


def test_a_model_of_few_training_tokens_loses_less():
    """Llama 2 and the first Mistrals, known by their vocabulary of 32k: about half of what the table says."""
    one = candidate("Q4_K_M")
    old = replace(one, shape=replace(one.shape, n_vocab=32_000))

    other = replace(old, shape=replace(old.shape, architecture="mamba"))

    assert expected_quality(old).kld == pytest.approx(0.47 * expected_quality(other).kld)


def test_q3_k_xl_is_q3_k_l_with_wide_embeddings():
    """As bartowski makes it; Unsloth's UD-Q3_K_XL is a mix of its own."""
    assert expected_quality(bare("Q3_K_XL")) == expected_quality(bare("Q3_K_L"))
    assert expected_quality(bare("UD-Q3_K_XL")) == expected_quality(bare("Q3_K_M"))
