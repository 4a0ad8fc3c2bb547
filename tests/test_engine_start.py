"""Which GPUs an engine is told to see: those that the choice was made on, in its order.

The cards are made up: there is no GPU here. What a driver makes of the variable is in docs/measurements/not-run.md.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from qrun.engine_start import _cuda_uuids
from qrun.hardware import Cpu, Device, Hardware
from qrun.placement import Placement
from qrun.runner import Engine, ServePlan
from qrun_llamacpp import LlamaCppRunner

ONE, TWO = (Device(f"card {i}", "cuda", 2**33, uuid=f"GPU-{i}{i}{i}{i}") for i in (1, 2))
RADEON = Device("radeon", "rocm", 2**33, uuid="GPU-3333")
PLAN = ServePlan(
    model_path=Path("/m.gguf"),
    alias="m",
    n_ctx=512,
    n_parallel=1,
    kv_cache_type="f16",
    placement=Placement("gpu", 9, 0, (0.25, 0.75)),
    threads=1,
    cache_ram_bytes=0,
    private_dir=Path("/run/q"),
)
ENGINE = Engine("llamacpp", "native", "1", Path("/opt/llama-server"), "test", frozenset({"cuda"}))


@pytest.mark.parametrize(
    ("gpus", "uuids"),
    [
        ((TWO, ONE), ("GPU-2222", "GPU-1111")),
        ((TWO,), ("GPU-2222",)),
        ((), ()),
        ((ONE, RADEON), ()),
        ((ONE, replace(TWO, uuid=None)), ()),
    ],
    ids=["in order", "one left by --gpus", "none", "of two kinds", "one nameless"],
)
def test_cards_are_named_only_where_all_can_be(gpus, uuids):
    """The machine's cards in the choice's order; nothing where a list would hide a GPU or shift the others."""
    hardware = Hardware("m", "linux", Cpu(None, "x86_64"), 2**35, gpus=gpus)

    assert _cuda_uuids(hardware) == uuids


@pytest.mark.parametrize(
    ("placement", "uuids", "visible"),
    [
        (PLAN.placement, ("GPU-2222", "GPU-1111"), "GPU-2222,GPU-1111"),
        (PLAN.placement, (), None),
        (Placement("cpu", 0, 0), ("GPU-2222",), None),
    ],
    ids=["named", "unnamed", "on the CPU"],
)
def test_the_engine_sees_the_cards_of_the_choice(placement, uuids, visible):
    """By environment, since CUDA's own order is not the driver's that `tensor_split` counts in."""
    launch = LlamaCppRunner().launch(ENGINE, replace(PLAN, placement=placement, cuda_uuids=uuids))

    assert launch.env.get("CUDA_VISIBLE_DEVICES") == visible
