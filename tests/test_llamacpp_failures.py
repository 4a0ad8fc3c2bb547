"""Why llama.cpp gave up, in a sentence: failures that are made on both real engines, and lines of other builds."""

import asyncio
import resource
from pathlib import Path

import pytest

from llamacpp_engines import FLAVOURS, engines, get
from qrun.errors import EngineFailed
from qrun.runner import TcpAddress
from qrun_llamacpp import LlamaCppRunner
from qrun_llamacpp.failures import explain

SELFTEST_MODEL = Path(__file__).parent.parent / "src" / "qrun" / "data" / "selftest.gguf"
WHOLE = SELFTEST_MODEL.read_bytes()


@pytest.fixture(params=list(FLAVOURS))
def llamacpp(request, tmp_path):
    """Each engine with a plan for the tiny model."""
    return engines(request.param, request.getfixturevalue(FLAVOURS[request.param]), SELFTEST_MODEL, tmp_path)


def failure_of(llamacpp, **changes) -> str:
    """What the supervisor says of an engine that does not start."""

    async def start():
        async with llamacpp.supervisor(**changes) as supervisor:
            with pytest.raises(EngineFailed) as failed:
                await supervisor.ready()
            return str(failed.value)

    return asyncio.run(start())


@pytest.mark.engine
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (WHOLE[:30_000], "the model file is damaged: "),
        (b"hello", "the model file is damaged: invalid magic"),
        (b"", "the model file is damaged: "),
        (WHOLE.replace(b"llama", b"xlamz"), "does not know the model architecture 'xlamz'"),
        (None, "cannot be opened: No such file"),
    ],
    ids=["truncated", "no GGUF", "empty", "architecture", "absent"],
)
def test_a_file_that_cannot_be_loaded_is_told_by_its_fault(llamacpp, tmp_path, content, reason):
    """Both engines' logs lead to the same sentence, and the log's place stands behind it."""
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)

    said = failure_of(llamacpp, model_path=path)

    assert reason in said
    assert f"Its log: {llamacpp.log_path}" in said


@pytest.mark.engine
def test_too_little_memory_is_told_with_the_buffer_and_what_to_try(llamacpp, smollm2_q4_1):
    """A context that no memory holds: the size that was refused, and the options that make it smaller."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30, before[1]))  # children inherit it; we use far less
    try:
        said = failure_of(llamacpp, model_path=smollm2_q4_1, n_ctx=4_000_000, n_parallel=1)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)

    assert "out of memory" in said
    assert "GiB" in said
    assert "--ctx" in said


@pytest.mark.engine
def test_a_port_that_is_taken_is_told(llamacpp, monkeypatch):
    """Somebody else took the loopback port between our asking and the engine's binding."""
    monkeypatch.setattr("qrun_llamacpp.runner._LONGEST_SOCKET_PATH_BYTES", 0)

    async def two_on_one_port():
        async with llamacpp.supervisor() as first:
            launch = await first.ready()
            assert isinstance(launch.address, TcpAddress)
            monkeypatch.setattr("qrun_llamacpp.runner._free_port", lambda: launch.address.port)
            second = engines(
                llamacpp.engine.flavour, llamacpp.engine.executable, SELFTEST_MODEL, llamacpp.log_path.parent
            )
            async with second.supervisor() as taken:
                with pytest.raises(EngineFailed) as failed:
                    await taken.ready()
            return str(failed.value), (await get(launch, "/health"))[0]

    said, first_still = asyncio.run(two_on_one_port())

    assert "it could not listen on 127.0.0.1" in said
    assert first_still == 200


@pytest.mark.engine
def test_an_argument_the_server_does_not_know_is_named(native_server, tmp_path):
    """A mistake after `--` is told by the server's own word for it."""
    native = engines("native", native_server, SELFTEST_MODEL, tmp_path)

    assert "invalid argument: --frobnicate" in failure_of(native, extra_args=("--frobnicate",))


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (
            "qrun_llamacpp: cannot import xllamacpp: libgomp.so.1: cannot open shared object file: No such file",
            "the system library libgomp.so.1 is missing (apt install libgomp1, dnf install libgomp, apk add libgomp)",
        ),
        (
            "llama-server: error while loading shared libraries: libcudart.so.12: cannot open shared object file",
            "the system library libcudart.so.12 is missing",
        ),
        (
            "cudaMalloc failed: out of memory\nalloc_tensor: failed to allocate CUDA0 buffer of size 8388608000\n",
            "out of memory for a buffer of 7.8 GiB on CUDA0; try a shorter --ctx, --kv-type q8_0 or a smaller quant",
        ),
        (
            "I alloc\nE ggml_aligned_malloc: insufficient memory (attempted to allocate  41.96 MB)\nGGML_ASSERT(ctx)",
            "out of memory for a buffer of 42.0 MiB; try a shorter --ctx, --kv-type q8_0 or a smaller quant",
        ),
        (
            "E llama_model_load: error loading model: mmap failed: Cannot allocate memory",
            "out of memory; try a shorter --ctx, --kv-type q8_0 or a smaller quant",
        ),
        (
            "terminate called after throwing an instance of 'std::bad_alloc'",
            "out of memory; try a shorter --ctx, --kv-type q8_0 or a smaller quant",
        ),
        (
            "Fatal Python error: Illegal instruction\n\nCurrent thread",
            "this processor lacks an instruction that the engine uses; run qrun engines install llamacpp --build",
        ),
        (
            "gguf_init_from_file_impl: tensor 'blk.0.x' has invalid ggml type 139 (NONE)\n",
            "the file holds a tensor type (139) this llama.cpp does not know",
        ),
        (
            "llama_model_load: error loading model: error loading model hyperparameters: key not found in model: x\n",
            "error loading model hyperparameters: key not found in model: x",
        ),
    ],
)
def test_lines_that_cannot_be_made_here_are_known(log, reason):
    """Other machines' failures, in the words of llama.cpp's and the loader's source."""
    found = LlamaCppRunner().explain_failure(log)

    assert found.words == reason
    assert found.lacks_memory is reason.startswith("out of memory")


@pytest.mark.parametrize("log", ["", "0.00.1 I srv init: using 8 threads\n", "I load: all went well"])
def test_a_log_without_a_known_reason_has_none(log):
    """Nothing is made up: the supervisor then tells how the engine ended."""
    assert explain(log) is None
