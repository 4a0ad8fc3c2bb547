"""Which GPUs an engine is told to see: those that the choice was made on, in its order.

The cards are made up: there is no GPU here. What a driver makes of the variable is in docs/measurements/not-run.md.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from qrun.config import read_config
from qrun.engine_start import _gpus_picked
from qrun.hardware import Cpu, Device, Hardware, cuda_uuids
from qrun.placement import Placement
from qrun.request import Request
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

    assert cuda_uuids(hardware) == uuids


@pytest.mark.parametrize(
    ("gpus", "option", "environ", "picked"),
    [
        ((ONE,), None, {}, False),
        ((ONE,), (0,), {}, True),
        ((ONE,), None, {"CUDA_VISIBLE_DEVICES": "0"}, True),
        ((ONE,), (0,), {"CUDA_VISIBLE_DEVICES": "0", "GGML_VK_VISIBLE_DEVICES": "1"}, False),
        ((ONE,), None, {"HIP_VISIBLE_DEVICES": "0"}, False),
        ((RADEON,), None, {"HIP_VISIBLE_DEVICES": "0"}, True),
        ((), None, {"CUDA_VISIBLE_DEVICES": "-1"}, False),
    ],
)
def test_gpus_are_picked_by_the_option_or_their_own_makers_variable(gpus, option, environ, picked):
    """Vulkan hears of neither; who tells it of the cards by its own variable has picked for themselves."""
    hardware = Hardware("m", "linux", Cpu(None, "x86_64"), 2**35, gpus=gpus)
    request = Request("m", gpus=option)
    here = SimpleNamespace(hardware=hardware, resolution=SimpleNamespace(request=request))

    assert _gpus_picked(here, read_config(environ)) is picked


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
    plan = replace(PLAN, placement=placement, cuda_uuids=uuids)
    by_vulkan = replace(ENGINE, flavour="ready-gpu", backends=frozenset({"cpu", "vulkan"}))

    assert LlamaCppRunner().launch(ENGINE, plan).env.get("CUDA_VISIBLE_DEVICES") == visible
    assert "CUDA_VISIBLE_DEVICES" not in LlamaCppRunner().launch(by_vulkan, plan).env
