"""Expected rates: bytes over bandwidth by tensor type, active experts only, a range always."""

from dataclasses import replace

import pytest

from candidates import QWEN_30B_A3B, candidate, card, cpu_only
from qrun.placement import Placement
from qrun.speed import active_bytes, expected_speed, relative_efficiency

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
