"""What serving shows of memory and speed: read from the engine, told where it differs, kept for the next decision."""

import asyncio
import http.client
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from qrun.gateway.served_names import ServedModel
from qrun.here import resolve_here
from qrun.learned_store import LearnedStore
from qrun.render_serve import show_ready
from qrun.request import Request
from qrun.runner import Loaded, PlaceMemory
from qrun.units import GIB, MIB
from qrun.watching import Watch, good_load, promised_bytes
from qrun_llamacpp import LlamaCppRunner

MODEL = "SmolLM2-135M-Instruct"

# As `qrun` does; but a rate counts although other tests have the processor too.
SERVE_ON_A_BUSY_MACHINE = """
import sys
import qrun.watching
from qrun.cli.main import main
qrun.watching._LEAST_CPU_SHARE = 0.0
sys.exit(main())
"""
# Lines of both engines' logs, on the CPU and (from llama.cpp's source) on two GPUs.
ON_CPU = """
0.00.191.479 I load_tensors: offloaded 31/31 layers to GPU
0.00.191.502 I load_tensors:   CPU_Mapped model buffer size =    92.10 MiB
0.00.193.441 I llama_context:        CPU  output buffer size =     0.19 MiB
0.00.193.989 I llama_kv_cache:        CPU KV buffer size =   720.00 MiB
0.02.482.573 I sched_reserve:        CPU compute buffer size =    99.00 MiB
0.02.482.573 I sched_reserve:        CPU compute buffer size =    45.50 MiB
"""
ON_GPUS = """
load_tensors: offloaded 20/33 layers to GPU
load_tensors:        CUDA0 model buffer size =  2000.00 MiB
load_tensors:        CUDA1 model buffer size =  1000.00 MiB
load_tensors:   CPU_Mapped model buffer size =   500.00 MiB
llama_kv_cache:      CUDA0 KV buffer size =   100.00 MiB
llama_kv_cache:      CUDA1 KV buffer size =   100.00 MiB
sched_reserve:      CUDA0 compute buffer size =   200.00 MiB
sched_reserve:  CUDA_Host compute buffer size =    20.00 MiB
"""


def metrics(decoded, decoding_s, prompt=0.0, prompt_s=0.0):
    """The engine's series."""
    return (
        f"llamacpp:prompt_tokens_total {prompt}\nllamacpp:prompt_seconds_total {prompt_s}\n"
        f"llamacpp:tokens_predicted_total {decoded}\nllamacpp:tokens_predicted_seconds_total {decoding_s}\n"
    )


class Sampler:
    """A front that answers with these samples, the last again and again."""

    def __init__(self, *samples) -> None:
        self._samples = list(samples)

    async def sample(self):
        """The next one."""
        return self._samples.pop(0) if len(self._samples) > 1 else self._samples[0]


def test_a_log_tells_where_the_model_lies():
    """The host's buffers together, of compute buffers the last; pinned host memory is the host's."""
    on_cpu, on_gpus = (LlamaCppRunner().loaded(text) for text in (ON_CPU, ON_GPUS))

    assert on_cpu.places == (PlaceMemory(None, int(92.1 * MIB), 720 * MIB, int(45.69 * MIB)),)
    assert [place.device for place in on_gpus.places] == ["CUDA0", "CUDA1", None]
    assert on_gpus.n_gpu_layers == 20
    assert on_gpus.taken_bytes(on_gpu=True) == 3400 * MIB
    assert on_gpus.taken_bytes(on_gpu=False) == 520 * MIB


def test_a_log_and_metrics_that_say_nothing_are_unknown():
    """None, not zero."""
    assert LlamaCppRunner().loaded("I load: all went well") is None
    assert LlamaCppRunner().work_done("llamacpp:tokens_predicted_total 3\n") is None


@pytest.fixture
def chosen(engine_config, demo_models, ready_python):
    """A decision on this machine's CPU: the choice and the hardware."""
    here = resolve_here(Request(f"{MODEL}:Q4_1"), config=engine_config, models_dir=demo_models)
    return here.resolution.chosen, here.hardware


@pytest.mark.engine
@pytest.mark.parametrize(
    ("sampled", "rate"),
    [
        (([(metrics(200, 4.0, 512, 1.0), 1)], True), 50.0),
        (([(metrics(100, 2.0), 4), (metrics(300, 6.0), 1)], True), 50.0),
        (([(metrics(200, 4.0), 8)], True), None),
        (([(metrics(10, 0.2), 1)], True), None),
        (([(metrics(200, 40.0), 1)], False), None),
    ],
    ids=["alone", "alone after a crowd", "in a crowd", "too few tokens", "busy machine"],
)
def test_only_a_rate_at_one_client_on_a_quiet_machine_counts(tmp_path, chosen, monkeypatch, sampled, rate):
    """A crowd shares the engine, other programs its processor, and a handful of tokens is noise."""
    choice, hardware = chosen
    samples, quiet = sampled
    monkeypatch.setattr("qrun.watching._EVERY_S", 0.0)
    cpu_s = iter([0.0, *([10**6 * n for n in range(1, 10**5)] if quiet else [0.1] * 10**5)])
    monkeypatch.setattr("qrun.watching._cpu_s", lambda _pid: next(cpu_s))
    store = LearnedStore(tmp_path)
    watching = Watch(
        choice,
        LlamaCppRunner().loaded(ON_CPU),
        runner=LlamaCppRunner(),
        hardware=hardware,
        store=store,
        engine_pid=lambda: None,
    )

    async def watch():
        task = asyncio.create_task(watching.run(Sampler(*samples)))
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(watch())

    (kept,) = store.get(hardware).observations
    assert kept.decode_tps == (rate and pytest.approx(rate))
    assert kept.taken_bytes == LlamaCppRunner().loaded(ON_CPU).taken_bytes(on_gpu=False)


@pytest.mark.engine
def test_a_gap_from_the_promise_is_said(chosen, capsys):
    """Context, slots, memory and layers, in one line; nothing where all is as promised."""
    choice, _ = chosen
    served = ServedModel(("m",), "m", choice.n_ctx, choice.n_parallel)
    as_promised = Loaded((PlaceMemory(None, promised_bytes(choice), 0, 0),))
    show_ready(served, choice, url="http://x", loaded=as_promised)
    silent = capsys.readouterr().err
    more = Loaded((PlaceMemory(None, promised_bytes(choice) + GIB, 0, 0),))
    show_ready(replace(served, n_ctx=512), choice, url="http://x", loaded=more)
    told = capsys.readouterr().err
    placement = replace(choice.placement, mode="split", n_gpu_layers=20)
    fewer = Loaded((PlaceMemory("CUDA0", 0, 0, 0),), n_gpu_layers=12)
    show_ready(served, replace(choice, placement=placement), url="http://x", loaded=fewer)

    assert silent == ""
    assert len(told.splitlines()) == 1
    assert "512 tokens of context" in told
    assert "were expected" in told
    assert "12 layers are on the GPU; decided were 20" in capsys.readouterr().err


@pytest.mark.engine
def test_a_load_is_held_against_the_promise_of_its_place(chosen):
    """On the CPU: host RAM, without the prompt cache that comes later."""
    choice, hardware = chosen
    observation = good_load(choice, LlamaCppRunner().loaded(ON_CPU), hardware)

    assert (observation.place, observation.mode) == ("ram", "cpu")
    assert observation.promised_bytes == choice.memory.total_bytes + choice.memory.host_bytes - choice.cache_ram_bytes
    assert observation.taken_bytes == LlamaCppRunner().loaded(ON_CPU).taken_bytes(on_gpu=False)


@pytest.mark.engine
def test_what_serving_measured_corrects_the_next_decision_and_is_told(
    qrun_exe, engine_config, demo_models, tmp_path, ready_python
):
    """A real engine serves 120 tokens; the next `qrun resolve` has its rate, and says where it is from."""
    environ = dict(engine_config.environ) | {"QRUN_MODELS_DIR": str(demo_models), "QRUN_STATE_DIR": str(tmp_path)}
    before = resolved(qrun_exe, environ)
    server = psutil.Popen(
        [sys.executable, "-c", SERVE_ON_A_BUSY_MACHINE, "serve", f"{MODEL}:Q4_1", "--port", "0", "--ctx", "1024"],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        endpoint = server.stdout.readline().strip()
        ask(endpoint, {"prompt": "Once upon a time", "max_tokens": 120, "temperature": 0, "ignore_eos": True})
    finally:
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=60)
    (path,) = Path(tmp_path, "learned").glob("*.json")
    (kept,) = json.loads(path.read_text())["seen"]

    after = resolved(qrun_exe, environ)
    other = resolved(qrun_exe, environ, f"{MODEL}:Q8_0")

    assert before["speed"]["source"] != "measured"
    assert after["speed"]["source"] == "measured"
    assert after["speed"]["decode_tps"] == pytest.approx(kept["decode_tps"], abs=0.01)
    assert any("were measured while it served here" in line for line in after["why"])
    assert other["speed"]["source"] != "measured"
    assert any(line.startswith("speed times ") for line in other["why"])
    assert kept["taken_bytes"] == pytest.approx(kept["promised_bytes"], rel=0.06)
    assert kept["peak_rss_bytes"] > 50 * MIB
    assert len(err.splitlines()) == 1  # nothing to tell of memory


def resolved(exe, environ, model=f"{MODEL}:Q4_1"):
    """What `qrun resolve --json` chooses."""
    done = subprocess.run(
        [exe, "resolve", model, "--ctx", "1024", "--json"], env=environ, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)["chosen"]


def ask(endpoint: str, body: object) -> None:
    """One completion."""
    connection = http.client.HTTPConnection(endpoint.split("/")[2], timeout=120)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        assert connection.getresponse().read()
    finally:
        connection.close()
