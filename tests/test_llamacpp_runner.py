"""The runner over both real engines: the same plan gives the same server, and nothing but qrun can reach it."""

import asyncio
import os
import signal
import stat
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from llamacpp_engines import FLAVOURS, engines, get
from qrun.placement import Placement
from qrun.runner import Engine, TcpAddress, UnixAddress
from qrun_llamacpp import LlamaCppRunner

SELFTEST_MODEL = Path(__file__).parent.parent / "src" / "qrun" / "data" / "selftest.gguf"
ONE_TOKEN = {"prompt": "abc", "max_tokens": 3, "temperature": 0}


@pytest.fixture(params=list(FLAVOURS))
def llamacpp(request, tmp_path):
    """Each engine with a plan for the tiny model."""
    return engines(request.param, request.getfixturevalue(FLAVOURS[request.param]), SELFTEST_MODEL, tmp_path)


async def shape_of(launch):
    """What the engine says that it serves."""
    _, props = await get(launch, "/props")
    _, slots = await get(launch, "/slots")
    _, models = await get(launch, "/v1/models")
    status, metrics = await get(launch, "/metrics")
    return {
        "slots": props["total_slots"],
        "n_ctx": props["default_generation_settings"]["n_ctx"],
        "slots_ctx": [slot["n_ctx"] for slot in slots],
        "alias": models["data"][0]["id"],
        "metrics": (status, "llamacpp:" in metrics),
        "page": (await get(launch, "/"))[0],
        "template": bool(props["chat_template"]),
    }


@pytest.mark.engine
def test_a_plan_gives_the_same_server_on_both_engines(llamacpp):
    """Context per request, slots, alias, metrics and slots' pages are the plan's on either; no page for people."""
    assert llamacpp.ask(shape_of) == {
        "slots": 3,
        "n_ctx": 256,
        "slots_ctx": [256, 256, 256],
        "alias": "tiny model: ünïcode",
        "metrics": (200, True),
        "page": 404,
        "template": True,
    }


@pytest.mark.engine
@pytest.mark.parametrize("kv_cache_type", ["f16", "q8_0", "q4_0"])
def test_every_kv_type_serves_on_both_engines(llamacpp, smollm2_q4_1, kv_cache_type):
    """A quantized cache needs flash attention: the engine takes each type and answers, and logs the type it took."""

    async def ask(launch):
        status, answer = await get(launch, "/v1/completions", {**ONE_TOKEN, "prompt": "The capital of France is"})
        return status, answer["choices"][0]["text"]

    status, text = llamacpp.ask(ask, model_path=smollm2_q4_1, kv_cache_type=kv_cache_type)

    assert status == 200
    assert "Paris" in text
    assert f"K ({kv_cache_type})" in llamacpp.log_path.read_text()


@pytest.mark.engine
def test_threads_and_prompt_cache_are_the_plans(llamacpp):
    """The engine's own log names the threads and the prompt cache's limit."""
    llamacpp.ask(shape_of, threads=1)
    log = llamacpp.log_path.read_text()

    assert "n_threads = 1 (n_threads_batch = 1)" in log
    assert "prompt cache is enabled, size limit: 64 MiB" in log


@pytest.mark.engine
def test_the_engine_does_not_refit_the_decision(llamacpp):
    """The decision is made: the engine's own fitting of parameters is off."""
    llamacpp.ask(shape_of)

    assert "fitting params" not in llamacpp.log_path.read_text()


@pytest.mark.engine
def test_experts_on_the_cpu_are_accepted_by_both_engines(llamacpp):
    """The setting for mixture-of-experts models is known to both, though this model has no experts."""

    async def ask(launch):
        return (await get(launch, "/v1/completions", ONE_TOKEN))[1]["choices"][0]["text"]

    assert llamacpp.ask(ask, placement=Placement("cpu", 0, 1, (0.5, 0.5))) == "def"


@pytest.mark.engine
def test_the_socket_is_in_the_private_folder_and_new_for_each_start(llamacpp):
    """Nobody else can enter the folder, and a socket left by a killed engine stops no start."""

    async def two_starts():
        seen = []
        for _ in range(2):
            async with llamacpp.supervisor() as supervisor:
                launch = await supervisor.ready()
                folder = launch.address.socket.parent
                seen.append((launch.address.socket.name, stat.S_IMODE(folder.stat().st_mode), launch.api_key))
        return seen

    first, second = asyncio.run(two_starts())

    assert first[0] != second[0]
    assert first[1:] == second[1:] == (0o700, None)


@pytest.mark.engine
def test_a_key_of_the_users_does_not_lock_qrun_out(llamacpp, monkeypatch):
    """LLAMA_API_KEY in the user's environment is for their own servers, not for ours."""
    monkeypatch.setenv("LLAMA_API_KEY", "theirs")

    async def ask(launch):
        return (await get(launch, "/slots"))[0]

    assert llamacpp.ask(ask) == 200


@pytest.mark.engine
def test_where_a_socket_cannot_be_a_random_key_guards_a_loopback_port(llamacpp, monkeypatch):
    """Without unix sockets the engine listens on loopback, and answers only who has the key."""
    monkeypatch.setattr("qrun_llamacpp.runner._LONGEST_SOCKET_PATH_BYTES", 0)

    async def ask(launch):
        with_key = await get(launch, "/v1/completions", ONE_TOKEN)
        argv_of_all = [part for process in psutil.Process().children(recursive=True) for part in process.cmdline()]
        return launch, with_key[0], (await get(launch, "/v1/completions", ONE_TOKEN, key="wrong"))[0], argv_of_all

    launch, right, wrong, argv = llamacpp.ask(ask)

    assert isinstance(launch.address, TcpAddress)
    assert launch.address.host == "127.0.0.1"
    assert len(launch.api_key) >= 32
    assert (right, wrong) == (200, 401)
    assert not [part for part in argv if launch.api_key in part]


@pytest.mark.engine
def test_the_ready_engine_ends_at_once_with_a_request_open_and_takes_its_socket(ready_python, smollm2_q4_1, tmp_path):
    """SIGTERM alone ends it within a second in the middle of an answer, with status 0 and no socket left."""
    ready = engines("ready", ready_python, smollm2_q4_1, tmp_path)
    launch = LlamaCppRunner().launch(ready.engine, replace(ready.plan, private_dir=tmp_path))

    async def check():
        process = await asyncio.create_subprocess_exec(
            *launch.argv, env={**os.environ, **launch.env}, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            await until_answering(launch)
            body = {"prompt": "Once", "n_predict": -1, "ignore_eos": True}
            asking = asyncio.create_task(get(launch, "/completion", body))
            await until_busy(launch)
            process.send_signal(signal.SIGTERM)
            code = await asyncio.wait_for(process.wait(), 5)
            asking.cancel()
            await asyncio.wait({asking})
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return code

    assert asyncio.run(check()) == 0
    assert not launch.address.socket.exists()


async def until_answering(launch, within_s=60):
    """Wait for the health path."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            if (await get(launch, "/health"))[0] == 200:
                return
        except OSError:
            pass
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def until_busy(launch, within_s=60):
    """Wait until a slot computes."""
    deadline = time.monotonic() + within_s
    while not any(slot["is_processing"] for slot in (await get(launch, "/slots"))[1]):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


PICKED = "a choice of GPUs (--gpus, CUDA_VISIBLE_DEVICES)"
READY = Engine("llamacpp", "ready", "1", Path("/py"), "test")
NATIVE = Engine("llamacpp", "native", "1", Path("/server"), "test")
VULKAN = Engine("llamacpp", "ready-gpu", "1", Path("/server"), "test", frozenset({"cpu", "vulkan"}))
CUDA = Engine("llamacpp", "native", "1", Path("/server"), "test", frozenset({"cpu", "cuda"}))


@pytest.mark.parametrize(
    ("engine", "changes", "lacks"),
    [
        (READY, {}, ()),
        (READY, {"extra_args": ("--temp", "0.5", "-ot", "x=CPU")}, ("--temp", "-ot")),
        (READY, {"extra_args": ("word",)}, ("word",)),
        (READY, {"placement": Placement("gpu", 33, 0)}, ("placement gpu",)),
        (READY, {"kv_cache_type": "q8_0"}, ()),
        (NATIVE, {"extra_args": ("--temp", "0.5")}, ()),
        (NATIVE, {"placement": Placement("split", 3, 0)}, ("placement split",)),
        (CUDA, {"placement": Placement("gpu", 33, 0, (0.5, 0.5))}, ()),
        (CUDA, {"placement": Placement("gpu", 33, 0), "gpus_picked": True}, ()),
        (VULKAN, {"placement": Placement("gpu", 33, 0), "extra_args": ("--temp", "0.5")}, ()),
        (VULKAN, {"placement": Placement("gpu", 33, 0), "gpus_picked": True}, (PICKED,)),
        (VULKAN, {"gpus_picked": True}, ()),
    ],
)
def test_what_an_engine_lacks_is_named_as_the_user_wrote_it(engine, changes, lacks, tmp_path):
    """The ready engine takes no raw arguments, none a GPU that it was not built for, and Vulkan no choice of them."""
    plan = replace(engines("ready", Path("/py"), SELFTEST_MODEL, tmp_path).plan, **changes)

    assert LlamaCppRunner().cannot(engine, plan) == lacks


@pytest.mark.parametrize(
    ("length", "kind"), [(60, UnixAddress), (89, UnixAddress), (90, TcpAddress), (200, TcpAddress)]
)
def test_a_private_folder_too_deep_for_a_socket_gets_a_port(length, kind):
    """A socket's path has at most 103 bytes on every system, 14 of them the socket's own name."""
    folder = Path("/" + "d" * (length - 1))
    plan = engines("native", Path("/server"), SELFTEST_MODEL, Path("/unused")).plan

    assert isinstance(LlamaCppRunner().launch(NATIVE, replace(plan, private_dir=folder)).address, kind)
