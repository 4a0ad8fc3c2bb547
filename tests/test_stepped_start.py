"""A load that fails for memory is tried again with less: by itself, told, and without a download nobody asked for."""

import asyncio
import http.client
import json
import os
import signal
import subprocess
from dataclasses import replace

import psutil
import pytest

from qrun.errors import EngineFailed
from qrun.here import resolve_here
from qrun.request import Request
from qrun.stepped_start import SteppedStart

MODEL = "SmolLM2-135M-Instruct"
# Between what the KV cache of 4 times 8192 tokens takes in f16 (720 MiB beside the rest) and in q8_0 (382.5 MiB).
ULIMIT_KIB = 850 * 1024
OUT_OF_MEMORY = "llamacpp", "out of memory; try a shorter --ctx"


@pytest.fixture
def config(engine_config, tmp_path):
    """The ready engine, with a state folder of the test's own."""
    return replace(engine_config, state_dir=tmp_path / "state")


def here_of(config, demo_models, **options):
    """The decision for the demo's model."""
    return resolve_here(Request(f"{MODEL}", **options), config=config, models_dir=demo_models)


def failing(start, failure):
    """The words of every step that is taken, until none is left."""

    async def step():
        found = []
        while words := await start.otherwise(failure()):
            found.append(words)
        return found

    return asyncio.run(step())


@pytest.mark.engine
def test_only_a_failure_for_memory_steps_down(config, demo_models):
    """A damaged file would be damaged again."""
    start = SteppedStart(here_of(config, demo_models), config=config, alias="m")

    assert failing(start, lambda: EngineFailed("llamacpp", "the model file is damaged")) == []
    assert start.taken == []


@pytest.mark.engine
def test_every_step_is_told_and_the_last_failure_names_them(config, demo_models):
    """All quants of a folder are on this disk; when nothing is left to try the error says what was."""
    start = SteppedStart(here_of(config, demo_models, goal="quality"), config=config, alias="m")
    told, failures = [], []
    start.on_step = lambda _failure, step: told.append(step.words)

    def fail():
        failures.append(EngineFailed(*OUT_OF_MEMORY, lacks_memory=True))
        return failures[-1]

    taken = failing(start, fail)

    assert taken == told == [step.words for step in start.taken]
    assert taken[:2] == ["a batch of 128 tokens", "the KV cache in q8_0"]
    assert len([words for words in taken if "MiB" in words]) >= 2  # other quants, with their sizes
    assert failures[-1].reason.endswith(f"; also with {', '.join(taken)}")
    assert start.choice.candidate.size_bytes < 100_000_000


@pytest.mark.engine
@pytest.mark.parametrize(("first_is_stored", "fetched"), [(True, False), (False, True)])
def test_another_quant_is_fetched_only_where_this_command_fetched_the_first(
    config, demo_models, first_is_stored, fetched
):
    """A download nobody asked for is none of qrun's; where one was begun anyway its successor is the same wish."""
    here = here_of(config, demo_models, goal="quality")
    chosen = replace(
        here.resolution.chosen, candidate=replace(here.resolution.chosen.candidate, stored=first_is_stored)
    )
    as_from_the_hub = replace(
        here,
        resolution=replace(here.resolution, chosen=chosen),
        pins=object(),  # decisions are kept of what the Hub has; only whether there are any is asked
    )
    start = SteppedStart(as_from_the_hub, config=config, alias="m")

    taken = failing(start, lambda: EngineFailed(*OUT_OF_MEMORY, lacks_memory=True))

    assert any("MiB" in words for words in taken) is fetched


@pytest.fixture
def short_of_memory(native_server, tmp_path):
    """The native llama-server under `ulimit -v`; qrun itself has no limit.

    With one arena: glibc would set addresses of 64 MiB aside for each thread, which count here and hold nothing.
    """
    script = tmp_path / "llama-server"
    limit = f"ulimit -v {ULIMIT_KIB}\nexport MALLOC_ARENA_MAX=1\n"
    script.write_text(f'#!/bin/sh\n{limit}exec "{native_server}" "$@"\n')
    script.chmod(0o755)
    return script


@pytest.mark.engine
def test_a_real_engine_short_of_memory_comes_up_with_less(qrun_exe, demo_models, short_of_memory, tmp_path):
    """Its own allocation fails, qrun tries less until it answers, tells what it gave up, and logs every failure."""
    environ = dict(os.environ) | {
        "QRUN_LLAMA_SERVER": str(short_of_memory),
        "QRUN_MODELS_DIR": str(demo_models),
        "QRUN_STATE_DIR": str(tmp_path / "state"),
    }
    words = [str(qrun_exe), "serve", f"{MODEL}:Q4_1", "--port", "0", "--ctx", "8192", "--parallel", "4"]
    server = psutil.Popen(
        words, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        endpoint = server.stdout.readline().strip()
        said = post(endpoint, {"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0})
        slots = len(json.loads(get(endpoint.removesuffix("/v1"), "/slots")))
    finally:
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=30)
    (log,) = (tmp_path / "state" / "logs").glob("*.log")
    first_lines = log.read_text(errors="replace").splitlines()[:2]
    log_before = log.with_name(f"{log.name}.1").read_text(errors="replace")

    assert said["choices"][0]["text"]
    assert slots == 4  # asked for by name
    assert "memory ran out while the model loaded; it runs with a batch of 128 tokens, the KV cache in q8_0" in err
    assert len(err.splitlines()) == 2
    assert [line.partition(":")[0] for line in first_lines] == ["qrun", "qrun"]
    assert "out of memory for a buffer of 720" in first_lines[0]
    assert first_lines[0].endswith("trying again with a batch of 128 tokens")
    assert first_lines[1].endswith("trying again with the KV cache in q8_0")
    assert "failed to allocate CPU buffer of size 754974720" in log_before


@pytest.mark.engine
def test_where_no_step_is_enough_the_one_error_says_what_was_tried(qrun_exe, demo_models, short_of_memory, tmp_path):
    """Exit 7, one line, with the engine's own reason and the steps; what was asked for by name was kept."""
    short_of_memory.write_text(short_of_memory.read_text().replace(str(ULIMIT_KIB), str(600 * 1024)))
    environ = dict(os.environ) | {
        "QRUN_LLAMA_SERVER": str(short_of_memory),
        "QRUN_MODELS_DIR": str(demo_models),
        "QRUN_STATE_DIR": str(tmp_path / "state"),
    }
    words = [str(qrun_exe), "serve", f"{MODEL}:Q4_1", "--port", "0", "--ctx", "8192", "--parallel", "4"]

    ended = subprocess.run(
        words, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )

    error = ended.stderr.splitlines()[-1]
    assert ended.returncode == 7
    assert "out of memory for a buffer of 382" in error
    assert "also with a batch of 128 tokens, the KV cache in q8_0" in error
    assert len(ended.stderr.splitlines()) == 2


def post(endpoint: str, body: object):
    """One completion."""
    connection = http.client.HTTPConnection(endpoint.split("/")[2], timeout=120)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def get(endpoint: str, path: str) -> bytes:
    """One GET."""
    connection = http.client.HTTPConnection(endpoint.split("/")[2], timeout=120)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()
