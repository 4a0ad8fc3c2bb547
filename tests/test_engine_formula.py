"""Memory of engines other than llama.cpp: the rules that their sources give, and that it is marked as an estimate."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrun.engine_formula import engine_parts
from qrun.hardware import Device
from qrun.memory import memory_need
from qrun.model import LayerShape, ModelShape, Weights
from qrun.placement import Placement
from qrun.units import GIB, MIB

LLAMA = ModelShape("llama", 32, 4096, 32, 14336, 128256, 8192, (LayerShape(8, 128, 128),) * 32)
WEIGHTS = Weights(4500 * MIB, 8 * 10**9, 500 * MIB, 400 * MIB, (112 * MIB,) * 32, (0,) * 32, ())
ENGINES = ["mlx", "exllamav2", "exllamav3", "vllm", "transformers"]
TOKEN_BYTES = 32 * 8 * 256 * 2  # keys and values of one token in f16


def parts(engine, shape=LLAMA, weights=WEIGHTS, **options):
    """The parts at 8,192 tokens, one sequence, f16, unless said."""
    options = {"n_ctx": 8192, "n_parallel": 1, "kv_cache_type": "f16"} | options
    return engine_parts(engine, shape, weights, **options)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_cache_holds_every_token_of_every_sequence(engine):
    """Keys and values in 16 bits, whatever the engine."""
    assert parts(engine, n_parallel=4).kv_cache_bytes == 4 * 8192 * TOKEN_BYTES


@pytest.mark.parametrize(
    ("engine", "tokens"),
    [("mlx", 1024), ("exllamav2", 1024), ("exllamav3", 1024), ("vllm", 1008), ("transformers", 1000)],
)
def test_a_cache_grows_by_pages(engine, tokens):
    """256 tokens in MLX and ExLlama, 16 in vLLM, one in transformers."""
    assert parts(engine, n_ctx=1000).kv_cache_bytes == tokens * TOKEN_BYTES


@pytest.mark.parametrize(
    ("engine", "q8_0", "q4_0"),
    [("mlx", 34, 18), ("exllamav2", 34, 18), ("exllamav3", 34, 18), ("vllm", 32, 32), ("transformers", 64, 64)],
)
def test_quantized_caches_are_the_engine_s_own(engine, q8_0, q4_0):
    """Bytes for 32 numbers: with scales, fp8 without, or none to be had."""
    full = parts(engine).kv_cache_bytes

    assert parts(engine, kv_cache_type="q8_0").kv_cache_bytes == full * q8_0 // 64
    assert parts(engine, kv_cache_type="q4_0").kv_cache_bytes == full * q4_0 // 64


def test_windows_are_kept_by_mlx_and_vllm_alone():
    """ExLlama's cache is as long in every layer; theirs keep the window and the chunk that moves over it."""
    shape = replace(LLAMA, layers=(LayerShape(8, 128, 128, window=1024),) * 32)
    long = {engine: parts(engine, shape, n_ctx=32768).kv_cache_bytes for engine in ENGINES}

    assert long["mlx"] == long["vllm"] == (1024 + 2048) * TOKEN_BYTES
    assert long["exllamav2"] == long["exllamav3"] == long["transformers"] == 32768 * TOKEN_BYTES


def test_exllama_keeps_the_input_s_table_in_host_ram():
    """A tied head is then a copy on the device."""
    tied = replace(WEIGHTS, output_bytes=0)

    assert (parts("exllamav3").weights_bytes, parts("exllamav3").host_bytes) == (4000 * MIB, 500 * MIB)
    assert (parts("exllamav3", weights=tied).weights_bytes, parts("mlx").host_bytes) == (4500 * MIB, 0)


def test_transformers_computes_a_prompt_as_one():
    """Its buffers grow with the context, the others' do not beyond a chunk."""
    grown = {engine: parts(engine, n_ctx=32768).compute_bytes / parts(engine).compute_bytes for engine in ENGINES}

    assert grown["transformers"] > 3.5
    assert grown["exllamav2"] == grown["exllamav3"] == grown["vllm"] == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_estimated_says_so(engine):
    """Whatever the weights are known from."""
    need = memory_need(
        LLAMA, WEIGHTS, Placement("gpu"), n_ctx=8192, n_parallel=1, kv_cache_type="f16", source="header", engine=engine
    )

    assert need.source == "formula"


def test_several_devices_share_by_proportion_and_each_has_its_buffers():
    """Weights and cache are divided, the working memory is not."""
    cards = [Device("a", "cuda", 24 * GIB), Device("b", "cuda", 24 * GIB)]
    placement = Placement("gpu", tensor_split=(0.75, 0.25))
    need = memory_need(
        LLAMA, WEIGHTS, placement, n_ctx=8192, n_parallel=1, kv_cache_type="f16", gpus=cards, engine="exllamav3"
    )

    assert [device.weights_bytes // MIB for device in need.devices] == [3000, 1000]
    assert need.devices[0].compute_bytes == need.devices[1].compute_bytes > 0
    assert need.total_bytes == sum(device.total_bytes for device in need.devices)


def test_on_the_cpu_everything_is_host_ram():
    """Mode cpu: one place, against the RAM budget."""
    need = memory_need(
        *(LLAMA, WEIGHTS, Placement("cpu")),
        n_ctx=8192,
        n_parallel=1,
        kv_cache_type="f16",
        ram_budget_bytes=GIB,
        engine="transformers",
    )

    assert (need.weights_bytes, need.host_bytes) == (4500 * MIB, 0)
    assert [(one.name, one.budget_bytes) for one in need.devices] == [("CPU", GIB)]


@given(st.sampled_from(ENGINES), st.integers(1, 200_000), st.integers(1, 8))
def test_longer_contexts_and_more_sequences_never_need_less(engine, n_ctx, n_parallel):
    """Cache and buffers grow with both."""
    here = parts(engine, n_ctx=n_ctx, n_parallel=n_parallel)
    longer = parts(engine, n_ctx=n_ctx + 500, n_parallel=n_parallel)
    wider = parts(engine, n_ctx=n_ctx, n_parallel=n_parallel + 1)

    for more in (longer, wider):
        assert here.kv_cache_bytes <= more.kv_cache_bytes
        assert here.compute_bytes <= more.compute_bytes
