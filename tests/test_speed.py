"""Expected rates: bytes over bandwidth by tensor type, active experts only, a range always."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candidates import QWEN_30B_A3B, candidate, card, cpu_only
from qrun.hardware import Device
from qrun.placement import Placement
from qrun.speed import active_bytes, constants_of, expected_speed, relative_efficiency

# llama.cpp's own table of decode efficiency against F16 on GPUs, and the types its mixes are made of (parts of bytes).
LLAMACPP_MIXES = {
    "Q8_0": (0.93, {"Q8_0": 1}),
    "Q6_K": (0.83, {"Q6_K": 1}),
    "Q5_K_M": (0.82, {"Q5_K": 0.75, "Q6_K": 0.25}),
    "Q4_K_M": (0.75, {"Q4_K": 0.72, "Q6_K": 0.28}),
    "IQ4_XS": (0.74, {"IQ4_XS": 0.86, "Q5_K": 0.04, "Q6_K": 0.1}),
    "Q3_K_M": (0.61, {"Q3_K": 0.66, "Q4_K": 0.2, "Q5_K": 0.03, "Q6_K": 0.11}),
    "IQ3_M": (0.57, {"IQ3_S": 0.77, "Q4_K": 0.12, "Q6_K": 0.11}),
    "Q2_K": (0.54, {"Q2_K": 0.57, "Q3_K": 0.3, "Q6_K": 0.13}),
    "IQ2_XXS": (0.41, {"IQ2_XXS": 0.73, "Q2_K": 0.08, "Q4_K": 0.05, "Q5_K": 0.14}),
}
GPU = Placement("gpu", 33, 0)
CPU = Placement("cpu", 0, 0)
SPLIT = replace(GPU, tensor_split=(0.5, 0.5))
LLAMA = candidate("Q4_K_M")


def rate(one, placement, hardware):
    return expected_speed(one.shape, one.weights, placement, hardware)


@pytest.mark.parametrize("quant", LLAMACPP_MIXES)
def test_the_types_of_a_mix_give_its_measured_efficiency(quant):
    """Summed over its tensor types, a mix of llama.cpp's comes within 4 % of llama.cpp's figure for it."""
    efficiency, parts = LLAMACPP_MIXES[quant]
    types = tuple((name, int(part * 1_000_000)) for name, part in parts.items())

    assert relative_efficiency(replace(candidate("Q4_K_M").weights, type_bytes=types), "gpu") == pytest.approx(
        efficiency, rel=0.04
    )


def test_a_type_without_a_figure_counts_as_the_nearest_in_bits():
    """A new type is neither free nor fatal."""
    weights = candidate("Q4_K_M").weights

    of_2_bits = [
        relative_efficiency(replace(weights, type_bytes=((name, 100),)), "gpu") for name in ("IQ2_XXS", "Q2_9", "Q2_K")
    ]

    assert of_2_bits == sorted(of_2_bits)


@pytest.mark.parametrize(
    ("quant", "measured_tps"),
    [("Q4_K_M", 127.7), ("F16", 54.3)],  # RTX 4090, Llama-3-8B: XiongjieDai/GPU-Benchmarks-on-LLM-Inference
)
def test_a_card_of_known_bandwidth_is_foretold_within_a_tenth(quant, measured_tps):
    """The model meets published rates of the commonest card, and its range holds them."""
    speed = rate(candidate(quant), GPU, card(24, bandwidth_bytes_per_s=1008e9))

    assert speed.decode_tps == pytest.approx(measured_tps, rel=0.1)
    assert speed.low < measured_tps < speed.high
    assert speed.source == "model"


def test_an_unknown_bandwidth_is_said_to_be_extrapolated_with_a_wide_range():
    """Where nothing was measured the figure is an assumption by class, and says so."""
    known = rate(candidate("Q4_K_M"), GPU, card(24, bandwidth_bytes_per_s=400e9))
    assumed = rate(candidate("Q4_K_M"), GPU, card(24))

    assert assumed.source == "extrapolated"
    assert assumed.low < known.low < known.high < assumed.high
    assert assumed.prefill_tps is None


def test_the_order_of_candidates_does_not_hang_on_the_bandwidth():
    """Ranking on one machine needs ratios alone: known or assumed, the order is the same."""
    quants = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q2_K", "IQ2_XXS")

    orders = [
        sorted(quants, key=lambda quant: rate(candidate(quant), GPU, hardware).decode_tps)
        for hardware in (card(24), card(24, bandwidth_bytes_per_s=1008e9))
    ]

    assert orders[0] == orders[1]


def test_small_i_quants_are_slow_on_a_cpu():
    """Below 4 bits an I-quant reads fewer bytes and is slower all the same."""
    small, larger = (rate(candidate(quant), CPU, cpu_only(32)).decode_tps for quant in ("IQ3_M", "Q4_K_M"))

    assert small < larger


def test_of_experts_only_those_in_use_are_read():
    """A mixture of 128 experts of which 8 work reads a sixteenth of them."""
    one = candidate("Q4_K_M", QWEN_30B_A3B, "unsloth")

    assert active_bytes(one.shape, one.weights) < one.weights.total_bytes / 7


def test_every_part_moved_to_the_cpu_costs_time():
    """Whole on the GPU is faster than split, split faster than the CPU; experts in RAM lie between."""
    hardware = card(24, bandwidth_bytes_per_s=1008e9)
    one = candidate("Q4_K_M", QWEN_30B_A3B, "unsloth")
    placements = [Placement("gpu", 49, 0), Placement("experts-on-cpu", 49, 24), Placement("split", 24, 0), CPU]

    rates = [rate(one, placement, hardware).decode_tps for placement in placements]

    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == len(rates)


def test_layers_split_over_cards_are_read_one_card_after_the_other():
    """Two equal cards decode one request no faster than one: the layers wait for each other."""
    one = candidate("Q4_K_M")
    split = replace(GPU, tensor_split=(0.5, 0.5))

    single = rate(one, GPU, card(24, bandwidth_bytes_per_s=1e12))
    double = rate(one, split, card(24, count=2, bandwidth_bytes_per_s=1e12))

    assert double.decode_tps == pytest.approx(single.decode_tps)


BANDWIDTHS = st.floats(10e9, 10_000e9)
ENGINES = st.sampled_from(["llamacpp", "mlx", "exllamav2", "exllamav3", "transformers", "vllm"])
KINDS = st.sampled_from(["cuda", "rocm", "vulkan", "metal"])


@given(BANDWIDTHS, BANDWIDTHS, ENGINES, KINDS)
def test_more_bandwidth_is_never_slower(one, other, engine, kind):
    """Whatever the engine and the backend, the rate rises with the device's bandwidth."""
    slow, fast = (
        expected_speed(LLAMA.shape, LLAMA.weights, GPU, card(24, kind=kind, bandwidth_bytes_per_s=rate), engine=engine)
        for rate in sorted((one, other))
    )

    assert slow.decode_tps <= fast.decode_tps


@given(st.integers(1, 10**9), st.integers(0, 10**9), ENGINES, KINDS)
def test_more_bytes_are_never_faster(layer_bytes, more_bytes, engine, kind):
    """Of the same types, the larger file decodes no faster."""
    machine = card(24, kind=kind, bandwidth_bytes_per_s=500e9)
    small, large = (
        expected_speed(
            LLAMA.shape, replace(LLAMA.weights, layer_bytes=(size,) * LLAMA.shape.n_layer), GPU, machine, engine=engine
        )
        for size in (layer_bytes, layer_bytes + more_bytes)
    )

    assert large.decode_tps <= small.decode_tps


@given(
    st.sampled_from([GPU, CPU, Placement("split", 12, 0), Placement("experts-on-cpu", 33, 8), SPLIT]),
    st.none() | BANDWIDTHS,
    ENGINES,
    st.sampled_from(["gguf", "mlx", "exl2", "awq", "bnb"]),
    st.integers(0, 131072),
)
def test_the_range_holds_the_rate(placement, bandwidth, engine, format_, n_before):
    """Every prediction is positive and lies within its own range, and says where it is from."""
    machine = card(24, count=2, bandwidth_bytes_per_s=bandwidth)

    speed = expected_speed(
        LLAMA.shape, LLAMA.weights, placement, machine, engine=engine, format=format_, n_before=n_before
    )

    assert 0 < speed.low < speed.decode_tps < speed.high
    assert speed.source in ("model", "extrapolated")
    if bandwidth is None:
        assert speed.source == "extrapolated"


def test_a_format_with_few_measurements_is_extrapolated_within_40_percent():
    """Fewer than 8 published rows of engine and format make no claim: the range is 40 % either way."""
    machine = card(24, bandwidth_bytes_per_s=1008e9)

    known = expected_speed(LLAMA.shape, LLAMA.weights, GPU, machine, engine="exllamav2", format="exl2")
    unknown = expected_speed(LLAMA.shape, LLAMA.weights, GPU, machine, engine="exllamav3", format="exl3")

    assert known.source == "model"
    assert unknown.source == "extrapolated"
    assert unknown.low == pytest.approx(0.6 * unknown.decode_tps)
    assert unknown.high == pytest.approx(1.4 * unknown.decode_tps)


def test_a_split_between_gpu_and_cpu_is_extrapolated():
    """No published row stands behind parts on both sides."""
    machine = replace(card(24, bandwidth_bytes_per_s=1008e9), ram_bandwidth_bytes_per_s=60e9)

    assert rate(LLAMA, Placement("split", 12, 0), machine).source == "extrapolated"
    assert rate(LLAMA, GPU, machine).source == "model"


def test_an_engine_without_figures_on_a_backend_has_llamacpps_and_says_extrapolated():
    """A new combination ranks, and claims nothing."""
    own, borrowed = constants_of("llamacpp", "metal"), constants_of("exllamav3", "metal")

    assert borrowed.layer_s == own.layer_s
    assert borrowed.rows == {}


def test_a_full_context_slows_decoding():
    """What lies in the KV cache is read for every token."""
    machine = card(24, bandwidth_bytes_per_s=1008e9)
    short, long = (expected_speed(LLAMA.shape, LLAMA.weights, GPU, machine, n_before=n).decode_tps for n in (0, 32768))

    assert long < 0.8 * short


def test_layers_that_lie_on_all_devices_are_read_by_them_together():
    """Two cards under vLLM decode one request faster than one, though not twice as fast."""
    one, two = (
        expected_speed(
            LLAMA.shape, LLAMA.weights, placement, card(24, count=2, bandwidth_bytes_per_s=300e9), engine="vllm"
        ).decode_tps
        for placement in (GPU, SPLIT)
    )

    assert one < two < 2 * one


def test_a_measured_bandwidth_counts_as_the_part_of_the_nominal_that_is_read():
    """60 GB/s read are memory of some 75 GB/s: efficiencies are against the nominal."""
    nominal = replace(cpu_only(64), ram_bandwidth_bytes_per_s=75e9)
    measured = replace(cpu_only(64), ram_bandwidth_bytes_per_s=60e9, ram_bandwidth_source="measured")

    assert rate(LLAMA, CPU, measured).decode_tps == pytest.approx(rate(LLAMA, CPU, nominal).decode_tps)


def test_prefill_follows_the_devices_fp16_rate_and_is_unknown_without_it():
    """A card known by name has a prefill rate; one that is not has none, and no guess."""
    named = Device("NVIDIA GeForce RTX 4090", "cuda", 24 * 2**30, bandwidth_bytes_per_s=1008e9)

    known = rate(LLAMA, GPU, replace(card(24), gpus=(named,)))
    unknown = rate(LLAMA, GPU, card(24, bandwidth_bytes_per_s=1008e9))

    assert known.prefill_tps == pytest.approx(165.2e12 * 0.33 / (2 * 7.5e9), rel=0.1)
    assert unknown.prefill_tps is None
