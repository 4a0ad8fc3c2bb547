"""Predicted memory against the engines' own dry runs, made here and now, for the demo's files and for large models."""

from pathlib import Path

import pytest

from config_gguf import CONFIGS, write_config
from dry_run import dry_run, native_command, ready_command, stand_in_gpus
from qrun.memory import memory_need
from qrun.placement import Placement
from qrun.shape import shape_of
from qrun.units import MIB
from sparse_gguf import MODELS, write_sparse
from test_gguf_header import header_of_file
from test_memory import TOTALS

pytestmark = pytest.mark.engine

QUANTS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
SETTINGS = [
    (n_ctx, n_parallel, kv) for n_ctx in (512, 2048, 8192) for n_parallel in (1, 4) for kv in ("f16", "q8_0", "q4_0")
]


def demo_file(demo_models: Path, quant: str) -> Path:
    """The demo's file of that quant."""
    (path,) = demo_models.glob(f"*/*/*{quant}.gguf")
    return path


def worst_gap(model: Path, command) -> float:
    """The largest relative gap to what the engine says, over all settings."""
    shape, weights = shape_of([header_of_file(model)])
    gaps = []
    for n_ctx, n_parallel, kv in SETTINGS:
        (host,) = dry_run(command(model, n_ctx=n_ctx, n_parallel=n_parallel, kv=kv))
        ours = memory_need(
            shape, weights, Placement("cpu"), n_ctx=n_ctx, n_parallel=n_parallel, kv_cache_type=kv
        ).total_bytes
        gaps.append(abs(ours / MIB / host.total - 1))
    return max(gaps)


@pytest.mark.parametrize("quant", QUANTS)
def test_the_native_engine_needs_what_was_predicted(quant, demo_models, native_server):
    """Within 3 % of llama-server's breakdown at every context, slot count and KV type."""

    def command(model, **settings):
        return native_command(native_server, model, **settings)

    assert worst_gap(demo_file(demo_models, quant), command) < 0.03


@pytest.mark.parametrize("quant", QUANTS)
def test_the_ready_engine_needs_what_was_predicted(quant, demo_models, ready_python):
    """Within 3 % of the breakdown of the server core in the ready engine's process."""

    def command(model, **settings):
        return ready_command(ready_python, model, **settings)

    assert worst_gap(demo_file(demo_models, quant), command) < 0.03


def placements(n_layer: int, *, moe: bool) -> list[tuple[Placement, int, list[str]]]:
    """Placements, the devices they take, and how llama-server is told of them."""
    whole, half = n_layer + 1, n_layer // 2
    cases = [
        (Placement("gpu", whole), 1, []),
        (Placement("split", half), 1, ["-ngl", str(half)]),
        (Placement("gpu", whole, None, (0.5, 0.5)), 2, ["-ts", "1,1"]),
        (Placement("split", half, None, (0.75, 0.25)), 2, ["-ts", "3,1", "-ngl", str(half)]),
    ]
    if moe:
        cases.append((Placement("experts-on-cpu", whole, 10), 1, ["-ngl", "999", "-ncmoe", "10"]))
    return cases


@pytest.mark.parametrize("name", ["llama-3-8b", "gemma-3-27b", "qwen3-30b-a3b", "gpt-oss-20b"])
def test_devices_hold_what_was_predicted(name, native_server, tmp_path):
    """Whole, half and on two devices, with processes in place of GPUs: each device and the host within 3 %."""
    model = write_sparse(tmp_path / "model.gguf", MODELS[name])
    shape, weights = shape_of([header_of_file(model)])
    for placement, n_devices, more in placements(shape.n_layer, moe=shape.n_expert > 0):
        with stand_in_gpus(native_server, n_devices) as devices:
            command = native_command(
                native_server, model, n_ctx=8192, n_parallel=1, kv="f16", more=["--rpc", devices, *more]
            )
            rows = dry_run(command)
        ours = memory_need(shape, weights, placement, n_ctx=8192, n_parallel=1, kv_cache_type="f16")
        predicted = [device.total_bytes / MIB for device in ours.devices] + [ours.host_bytes / MIB]

        assert predicted == pytest.approx([row.total for row in rows], rel=0.03), placement


SAMPLED = ["deepseek-v2-lite", "falcon-h1-0.5b", "gemma-3-27b", "glm-4.5-air", "qwen3-next-80b-a3b"]
ASKED_AGAIN = [run for run in TOTALS if run[0] in SAMPLED][::7]


@pytest.mark.parametrize("run", ASKED_AGAIN, ids=" ".join)
def test_the_recorded_answers_are_those_of_this_engine(run, native_server, tmp_path, monkeypatch):
    """A sample of the table, asked again: to the MiB, so that the fast tests hold memory against what is true."""
    monkeypatch.setenv("GGML_NO_BACKTRACE", "1")  # a stand-in that is gone would start a debugger
    name, n_ctx, n_parallel, kv, mode, n_gpu_layers, n_cpu_moe, split = run
    model = write_config(tmp_path / "m.gguf", CONFIGS[name])
    options = ["-ts", split.replace(":", ",")] if split != "-" else []
    options += ["-ngl", n_gpu_layers] if n_gpu_layers != "-" else []
    options += ["-ngl", "999", "-ncmoe", n_cpu_moe] if n_cpu_moe != "-" else []
    with stand_in_gpus(native_server, 0 if mode == "cpu" else split.count(":") + 1) as devices:
        options += ["--rpc", devices] if devices else []
        settings = {"n_ctx": int(n_ctx), "n_parallel": int(n_parallel), "kv": kv}
        rows = dry_run(native_command(native_server, model, **settings, more=options))

    assert [row.total for row in rows] == list(TOTALS[run])
