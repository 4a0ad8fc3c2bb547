"""Where one candidate goes on one machine: the fastest memory that holds it, to the byte of its budget."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candidates import LLAMA_3_8B, QWEN_30B_A3B, candidate, candidate_of, card, cpu_only, rows
from qrun.fit import (
    MAX_CACHE_RAM_BYTES,
    Task,
    fit_in_mode,
    kv_types_for,
    lengthened,
    modes_for,
    smallest_need,
    spare_ram_bytes,
    usable_gpus,
    with_more_slots,
)
from qrun.hardware import Device
from qrun.model import LayerShape
from qrun.units import GIB

BOTH = ("f16", "q8_0")


def task_of(one, hardware, *, n_ctx=8192, n_parallel=1):
    return Task(one.shape, one.weights, hardware, usable_gpus(hardware), n_ctx, n_parallel)


def holds(fit, hardware):
    """Whether the fit keeps every budget, counted anew."""
    shared = fit.placement.mode in ("cpu", "unified")
    in_ram = fit.memory.host_bytes + (fit.memory.total_bytes if shared else 0)
    return in_ram <= hardware.ram_budget_bytes and all(
        one.total_bytes <= one.budget_bytes for one in fit.memory.devices
    )


@pytest.mark.parametrize("kv_type", BOTH)
@pytest.mark.parametrize("row", [row for row in rows() if row["f16_bytes"]], ids=lambda row: row["quant"])
def test_the_need_is_the_engines_own(row, kv_type):
    """Whole on one device a model needs what llama-server's own breakdown says, to half a hundredth."""
    need = smallest_need(task_of(candidate_of(row), card(80)), "gpu", (kv_type,))

    assert need.total_bytes == pytest.approx(int(row[f"{kv_type}_bytes"]), rel=0.005)


def test_a_model_that_fits_one_card_lies_whole_on_it():
    """All layers and the output on the GPU, nothing to divide."""
    fit = fit_in_mode(task_of(candidate("Q8_0"), card(24)), "gpu", BOTH)

    assert (fit.placement.n_gpu_layers, fit.placement.tensor_split, fit.kv_cache_type) == (33, None, "f16")


def test_the_kv_cache_is_quantized_only_where_f16_does_not_fit():
    """Q6_K of an 8B model on 8 GB: 6.85 GiB with f16, 6.38 with q8_0, of 6.5."""
    fits = {quant: fit_in_mode(task_of(candidate(quant), card(8)), "gpu", BOTH) for quant in ("Q5_K_M", "Q6_K", "Q8_0")}

    assert fits["Q5_K_M"].kv_cache_type == "f16"
    assert fits["Q6_K"].kv_cache_type == "q8_0"
    assert fits["Q8_0"] is None


@pytest.mark.parametrize(
    ("head_dim", "wish", "types"),
    [(128, "auto", BOTH), (80, "auto", ("f16",)), (128, "q4_0", ("q4_0",)), (128, "f16", ("f16",))],
)
def test_auto_tries_f16_then_q8_0_where_the_heads_allow(head_dim, wish, types):
    """q4_0 only where named; heads that are no multiple of 32 cannot be stored in q8_0 blocks."""
    shape = replace(candidate("Q4_K_M").shape, layers=(LayerShape(8, head_dim, head_dim),) * 32)

    assert kv_types_for(shape, wish) == types


def test_a_split_puts_as_many_layers_on_the_card_as_fit():
    """One layer more would not fit."""
    hardware = card(4)
    task = task_of(candidate("Q5_K_M"), hardware)
    fit = fit_in_mode(task, "split", ("f16",))

    full = fit.memory.devices[0]
    per_layer = task.weights.layer_bytes[0] + full.kv_cache_bytes // fit.placement.n_gpu_layers
    assert 0 < fit.placement.n_gpu_layers < 33
    assert full.total_bytes <= full.budget_bytes < full.total_bytes + 2 * per_layer


def test_of_a_mixture_the_fewest_experts_go_to_ram():
    """All layers stay on the GPU; with one layer's experts fewer in RAM it would not fit."""
    task = task_of(candidate("Q4_K_M", QWEN_30B_A3B, "unsloth"), card(8, ram_gib=32))

    fit = fit_in_mode(task, "experts-on-cpu", ("f16",))

    full = fit.memory.devices[0]
    assert fit.placement.n_gpu_layers == 49
    assert 0 < fit.placement.n_cpu_moe < 48
    assert full.total_bytes + task.weights.expert_bytes[0] > full.budget_bytes


def test_what_is_moved_off_the_card_must_fit_ram():
    """A split onto a machine without RAM is no fit."""
    one = candidate("Q8_0")

    assert fit_in_mode(task_of(one, card(4, ram_gib=4)), "split", BOTH) is None
    assert fit_in_mode(task_of(one, card(4, ram_gib=32)), "split", BOTH) is not None


def test_of_two_cards_one_is_used_where_one_is_enough():
    """A second card would only cost buffers: the split is one-sided."""
    fit = fit_in_mode(task_of(candidate("Q4_K_M"), card(24, count=2)), "gpu", BOTH)

    assert fit.placement.tensor_split == (1.0, 0.0)
    assert [device.name for device in fit.memory.devices] == ["GPU 0"]


def test_the_faster_of_two_cards_is_used_first():
    """Of cards that each hold the model, the one with more bandwidth."""
    hardware = card(24, count=2)
    slow, fast = hardware.gpus
    hardware = replace(hardware, gpus=(slow, replace(fast, bandwidth_bytes_per_s=1e12)))

    fit = fit_in_mode(task_of(candidate("Q4_K_M"), hardware), "gpu", BOTH)

    assert fit.placement.tensor_split == (0.0, 1.0)


@pytest.mark.parametrize("sizes", [(8, 8), (6, 9), (9, 6), (5, 5, 5)])
def test_a_model_too_large_for_one_card_is_divided_by_budget(sizes):
    """The proportions sum to 1, and every card holds its part."""
    gpus = tuple(Device(f"GPU {index}", "cuda", gib * GIB) for index, gib in enumerate(sizes))
    hardware = replace(cpu_only(64), gpus=gpus)

    fit = fit_in_mode(task_of(candidate("Q8_0"), hardware), "gpu", BOTH)

    assert holds(fit, hardware)
    assert sum(fit.placement.tensor_split) == pytest.approx(1)
    assert len(fit.memory.devices) == len(sizes)
    assert (
        fit.placement.tensor_split[sizes.index(max(sizes))] >= max(fit.placement.tensor_split) - 2 / 33
    )  # by layers, the output being one


def test_cards_of_another_kind_stay_out():
    """An engine is built for one kind of GPU: that with the larger budget is used."""
    gpus = (Device("small", "vulkan", 4 * GIB), Device("a", "cuda", 8 * GIB), Device("b", "cuda", 8 * GIB))

    assert usable_gpus(replace(cpu_only(32), gpus=gpus)) == (1, 2)
    assert usable_gpus(replace(cpu_only(32), gpus=gpus[:1]), frozenset({"vulkan", "cpu"})) == (0,)
    assert usable_gpus(replace(cpu_only(32), gpus=gpus), frozenset({"vulkan", "cpu"})) == (1, 2)
    assert usable_gpus(replace(cpu_only(32), gpus=gpus), frozenset({"cuda", "cpu"})) == (1, 2)
    assert usable_gpus(replace(cpu_only(32), gpus=gpus), frozenset({"cpu"})) == ()


def test_an_integrated_gpu_stays_out_beside_a_card():
    """Its memory is the host's own and would be counted twice."""
    gpus = (Device("integrated", "vulkan", 64 * GIB, unified=True), Device("card", "vulkan", 8 * GIB))

    assert usable_gpus(replace(cpu_only(64), gpus=gpus)) == (1,)


@pytest.mark.parametrize(
    ("hardware", "wish", "modes"),
    [
        (card(8), "auto", ("gpu", "split", "cpu")),
        (card(8), "gpu", ("gpu",)),
        (card(16, kind="metal", ram_gib=16), "auto", ("unified", "cpu")),
        (card(16, kind="metal", ram_gib=16), "gpu", ("unified",)),
        (cpu_only(16), "auto", ("cpu",)),
        (cpu_only(16), "gpu", ()),
    ],
)
def test_the_modes_open_to_a_dense_model(hardware, wish, modes):
    """Fastest first; `gpu` leaves only the whole model in GPU memory."""
    assert modes_for(candidate("Q4_K_M").shape, hardware, usable_gpus(hardware), wish) == modes


def test_a_mixture_may_keep_its_experts_in_ram():
    """Before a layer split, which would move attention off the GPU too."""
    shape = candidate("Q4_K_M", QWEN_30B_A3B, "unsloth").shape

    assert modes_for(shape, card(8), (0,), "auto") == ("gpu", "experts-on-cpu", "split", "cpu")


def test_unified_memory_is_counted_once():
    """On a Mac the working set and RAM are the same bytes: what the GPU takes, the host no longer has."""
    one = candidate("Q8_0")

    assert fit_in_mode(task_of(one, card(16, kind="metal", ram_gib=16)), "unified", BOTH) is not None
    assert fit_in_mode(task_of(one, card(16, kind="metal", ram_gib=10)), "unified", BOTH) is None


def test_slots_rise_to_four_where_they_fit_and_to_one_on_a_cpu():
    """The placement and the KV type stay as chosen."""
    counts = {}
    for name, hardware, mode in [("large", card(24), "gpu"), ("small", card(8), "gpu"), ("cpu", cpu_only(64), "cpu")]:
        task = task_of(candidate("Q5_K_M"), hardware)
        fit = fit_in_mode(task, mode, BOTH)
        more = with_more_slots(task, fit)
        counts[name] = more.n_parallel

        assert (more.placement, more.kv_cache_type) == (fit.placement, fit.kv_cache_type)
        assert holds(more, hardware)
    assert counts == {"large": 4, "small": 1, "cpu": 1}


def test_a_longer_context_takes_what_is_left():
    """`--ctx auto`: up to the model's own where that fits, else the longest in steps of 256."""
    one = candidate("Q8_0")
    long = replace(one, shape=replace(one.shape, n_ctx_train=131072))
    hardware = card(16)
    task = task_of(long, hardware)

    fit = lengthened(task, fit_in_mode(task, "gpu", ("f16",)))
    next_step = smallest_need(replace(task, n_ctx=fit.n_ctx + 256), "gpu", ("f16",))

    assert 8192 < fit.n_ctx < 131072
    assert holds(fit, hardware)
    assert next_step.total_bytes > hardware.gpus[0].budget_bytes
    assert lengthened(task_of(one, hardware), fit_in_mode(task_of(one, hardware), "gpu", ("f16",))).n_ctx == 8192


def test_the_prompt_cache_gets_what_is_left_of_ram_up_to_8_gib():
    """It never pushes anything out, and may get nothing."""
    one = candidate("Q4_K_M")
    plenty, some = cpu_only(64), cpu_only(10)

    spare = {
        hardware.ram_bytes // GIB: spare_ram_bytes(fit_in_mode(task_of(one, hardware), "cpu", BOTH), hardware)
        for hardware in (plenty, some)
    }

    assert spare[64] == MAX_CACHE_RAM_BYTES == 8 * GIB
    assert 0 < spare[10] < 3 * GIB


@settings(deadline=None)
@given(
    row=st.sampled_from([row for row in rows() if row["model"] in (LLAMA_3_8B, QWEN_30B_A3B)]),
    sizes=st.lists(st.floats(2, 26), max_size=3),
    ram_gib=st.floats(2.5, 70),
    n_ctx=st.integers(256, 8192),
    n_parallel=st.integers(1, 4),
)
def test_whatever_is_called_a_fit_keeps_every_budget(row, sizes, ram_gib, n_ctx, n_parallel):
    """Any mode, any cards, any RAM: a fit is within each device's budget and the RAM budget."""
    one = candidate_of(row)
    gpus = tuple(Device(f"GPU {index}", "cuda", int(gib * GIB)) for index, gib in enumerate(sizes))
    hardware = replace(cpu_only(ram_gib), gpus=gpus)
    task = task_of(one, hardware, n_ctx=n_ctx, n_parallel=n_parallel)
    modes = modes_for(task.shape, hardware, task.gpus, "auto")

    fits = [fit for mode in modes if (fit := fit_in_mode(task, mode, BOTH))]

    assert all(holds(fit, hardware) for fit in fits)


@settings(deadline=None)
@given(row=st.sampled_from(rows()), contexts=st.tuples(st.integers(1, 300_000), st.integers(1, 300_000)))
def test_a_longer_context_never_needs_less(row, contexts):
    """The need grows with the context."""
    task = task_of(candidate_of(row), card(80))
    short, long = (smallest_need(replace(task, n_ctx=n_ctx), "gpu", ("f16",)).total_bytes for n_ctx in sorted(contexts))

    assert short <= long


def test_each_engines_own_layout_of_memory_counts():
    """ExLlama's need is by its own formula and says so; llama.cpp's is by the header's bytes."""
    one = candidate("Q4_K_M")
    task = task_of(one, card(24))
    exl = replace(task, modes=frozenset({"gpu"}), engine="exllamav3")

    ours, theirs = (smallest_need(each, "gpu", ("f16",)) for each in (task, exl))

    assert (ours.source, theirs.source) == ("header", "formula")
    assert ours.total_bytes != theirs.total_bytes
