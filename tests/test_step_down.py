"""What is tried when a model does not load for lack of memory: in which order, and what is never given up."""

from dataclasses import replace

import pytest

from candidates import LLAMA_3_8B, LLAMACPP, QWEN_30B_A3B, candidate_of, rows
from qrun.hardware import Cpu, Device, Hardware
from qrun.model import LayerShape
from qrun.request import Request
from qrun.resolve import resolve
from qrun.source import FoundModel
from qrun.step_down import steps_down
from qrun.units import GIB

MACHINE = Hardware("test", "linux", Cpu("a CPU", "x86_64"), 64 * GIB)


def decided(model=LLAMA_3_8B, *, gpu_gib=24, quants=("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"), shape=None, **options):
    """A resolution on a machine with one card, or with none."""
    cards = (Device("a card", "cuda", gpu_gib * GIB),) if gpu_gib else ()
    found = [candidate_of(row) for row in rows() if row["model"] == model and row["quant"] in quants]
    first = {one.quant: one for one in found}
    if shape is not None:
        first = {quant: replace(one, shape=shape(one.shape)) for quant, one in first.items()}
    candidates = FoundModel(model, tuple(first.values()))
    return resolve(Request(model, **options), candidates, replace(MACHINE, gpus=cards), [LLAMACPP])


def words(resolution, **facts):
    """The steps in words, other quants by their label alone."""
    return [
        step.attempt.choice.candidate.quant if step.other_files else step.words
        for step in steps_down(resolution, **facts)
    ]


def test_the_order_is_that_of_the_design():
    """Slots that were only spare, the projector, the batch, the KV cache, layers, then the next smaller quant."""
    resolution = decided(goal="quality")
    steps = words(resolution, has_projector=True)

    assert resolution.chosen.candidate.quant == "Q8_0"
    assert steps[:9] == [
        "one request at a time",
        "the projector on the CPU",
        "a batch of 128 tokens",
        "the KV cache in q8_0",
        "24 of 33 layers on the GPU",
        "16 of 33 layers on the GPU",
        "8 of 33 layers on the GPU",
        "0 of 33 layers on the GPU",
        "Q6_K",
    ]
    assert [step for step in steps if step.startswith("Q")] == ["Q6_K", "Q5_K_M", "Q4_K_M"]


def test_each_step_keeps_what_was_given_up_before():
    """Nothing comes back: not the batch, not the cache's type, not the slots; another quant begins on the GPU again."""
    steps = list(steps_down(decided(goal="quality")))
    last = steps[-1].attempt
    first_of_next = next(step.attempt for step in steps if step.other_files)

    assert all(step.attempt.n_batch == 128 for step in steps[1:])
    assert (last.choice.kv_cache_type, last.choice.n_parallel) == ("q8_0", 1)
    assert (first_of_next.choice.kv_cache_type, first_of_next.choice.n_parallel) == ("q8_0", 1)
    assert first_of_next.choice.placement.mode == "gpu"
    assert last.choice.placement.mode == "cpu"


def test_the_model_and_its_base_stay_the_same():
    """A step never leaves the model that was asked for, nor its context."""
    resolution = decided()

    for step in steps_down(resolution):
        assert step.attempt.choice.candidate.base_model == resolution.base_model
        assert step.attempt.choice.n_ctx == resolution.chosen.n_ctx


def test_experts_go_to_the_cpu_before_layers_do():
    """A mixture of experts keeps its attention on the GPU."""
    resolution = decided(QWEN_30B_A3B, gpu_gib=48, quants=("Q4_K_M",))

    assert [one for one in words(resolution) if "experts" in one or "layers" in one] == [
        "the experts of 24 of 48 layers on the CPU",
        "the experts of 48 of 48 layers on the CPU",
    ]


@pytest.mark.parametrize(
    ("options", "never"),
    [
        ({"n_parallel": 4}, "one request at a time"),
        ({"kv_type": "f16"}, "the KV cache in q8_0"),
        ({"placement": "gpu"}, "layers on the GPU"),
        ({"quant": "Q8_0"}, "Q6_K"),
    ],
    ids=["--parallel", "--kv-type", "--placement gpu", "--quant"],
)
def test_what_was_asked_for_by_name_is_not_given_up(options, never):
    """The user's own word stands, even where the model then does not load."""
    assert not [step for step in words(decided(goal="quality", **options)) if never in step]


def test_a_context_that_was_grown_shrinks_to_the_default_first():
    """`--ctx auto` took what was left of memory; half of it is tried, and never less than the default."""

    def long(shape):
        return replace(shape, n_ctx_train=65536)

    resolution = decided(n_ctx="auto", shape=long)

    assert resolution.chosen.n_ctx == 65536
    assert words(resolution)[:3] == ["32768 tokens of context", "16384 tokens of context", "8192 tokens of context"]


def test_heads_that_q8_0_does_not_divide_keep_f16():
    """A step that the engine would refuse is none."""

    def odd(shape):
        return replace(shape, layers=(LayerShape(8, 80, 80),) * shape.n_layer)

    assert "the KV cache in q8_0" not in words(decided(shape=odd))


def test_on_the_cpu_there_is_nothing_to_move():
    """Fewer tokens at once and a smaller cache; then another quant."""
    steps = words(decided(gpu_gib=0, goal="quality"))

    assert steps == ["a batch of 128 tokens", "the KV cache in q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"]
