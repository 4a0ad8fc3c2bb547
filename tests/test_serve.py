"""`qrun serve` as users run it: the installed command, a real engine, real signals."""

import http.client
import json
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from front import wait_for

MODEL = "SmolLM2-135M-Instruct:Q4_1"
READY_WITHIN_S = 120
GONE_WITHIN_S = 20

pytestmark = pytest.mark.engine


class Server:
    """A `qrun serve` that runs."""

    def __init__(self, exe: Path, environ: dict[str, str], *args: str) -> None:
        self.process = psutil.Popen(
            [str(exe), "serve", *args],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_ready(self) -> str:
        """The endpoint, as the server tells scripts."""
        line = self.process.stdout.readline().strip()
        assert line, self.process.stderr.read()
        return line

    def family(self) -> list[psutil.Process]:
        """The server and all that it started."""
        return [self.process, *self.process.children(recursive=True)]

    def ended(self) -> tuple[int, str, str]:
        """Exit code, stdout and stderr once it has ended."""
        out, err = self.process.communicate(timeout=GONE_WITHIN_S)
        return self.process.returncode, out, err


@pytest.fixture
def environ(engine_config, demo_models, tmp_path):
    """The environment of a qrun with the ready engine and the demo's models."""
    return dict(engine_config.environ) | {"QRUN_MODELS_DIR": str(demo_models), "QRUN_STATE_DIR": str(tmp_path)}


@pytest.fixture
def serve(qrun_exe, environ):
    """Starts `qrun serve`; whatever is left of it at the end is killed."""
    started: list[Server] = []

    def start(*args: str, **more: str) -> Server:
        server = Server(qrun_exe, environ | more, *args)
        started.append(server)
        return server

    yield start
    for server in started:
        for process in server.family() if server.process.is_running() else []:
            process.kill()
        server.process.stdout.close()
        server.process.stderr.close()
        server.process.wait()


def ask(endpoint: str, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
    """One request to a server."""
    connection = http.client.HTTPConnection(endpoint.split("/")[2], timeout=120)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_a_name_is_served_until_ctrl_c(serve):
    """From a name to an answer; stdout holds the endpoint alone, stderr one line; then nothing is left and exit 130."""
    server = serve(MODEL, "--port", "0", "--ctx", "1024")
    endpoint = server.wait_until_ready()
    status, body = ask(endpoint, "POST", "/v1/completions", {"prompt": "One, two,", "max_tokens": 5})
    family = server.family()
    server.process.send_signal(signal.SIGINT)
    code, out, err = server.ended()

    assert status == 200
    assert json.loads(body)["usage"]["completion_tokens"] == 5
    assert code == 130
    assert out == ""
    assert err.count("\n") == 1
    assert "SmolLM2-135M-Instruct Q4_1 from " in err
    assert endpoint in err
    assert len(family) > 1
    wait_for(lambda: not any(process.is_running() for process in family), GONE_WITHIN_S)


def test_termination_with_a_stream_open_leaves_nothing(serve):
    """SIGTERM is exit 143, the stream ends with an error event, the engine is gone."""
    server = serve(MODEL, "--port", "0", "--ctx", "1024")
    endpoint = server.wait_until_ready()
    connection = http.client.HTTPConnection(endpoint.split("/")[2], timeout=60)
    asked = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, "ignore_eos": True}
    connection.request("POST", "/v1/chat/completions", json.dumps(asked))
    stream = connection.getresponse()
    stream.readline()
    family = server.family()
    server.process.send_signal(signal.SIGTERM)
    rest = stream.read().decode()
    connection.close()
    code, _, _ = server.ended()

    assert code == 143
    assert '{"error": {' in rest.splitlines()[-2]
    assert "[DONE]" not in rest
    wait_for(lambda: not any(process.is_running() for process in family), GONE_WITHIN_S)


def test_port_listens_before_the_model_is_loaded(serve):
    """Clients are told to wait, or wait, instead of being refused."""
    server = serve(MODEL, "--port", "0", "--ctx", "1024")
    line = server.process.stderr.readline()
    endpoint = line.split(" on ")[1].split(";")[0].strip()
    status, body = ask(endpoint, "GET", "/health")
    answered, _ = ask(endpoint, "POST", "/v1/completions", {"prompt": "One,", "max_tokens": 2})
    later, _ = ask(endpoint, "GET", "/health")

    assert status == 503
    assert json.loads(body)["error"]["code"] == "loading"
    assert (answered, later) == (200, 200)


def test_termination_while_the_model_loads_leaves_nothing(serve):
    """A server that is not ready yet can be stopped like one that is."""
    server = serve(MODEL, "--port", "0")
    server.process.stderr.readline()
    family = server.family()
    server.process.send_signal(signal.SIGTERM)
    code, out, _ = server.ended()

    assert code == 143
    assert out == ""
    wait_for(lambda: not any(process.is_running() for process in family), GONE_WITHIN_S)


def test_key_is_demanded_and_stands_in_no_childs_sight(serve):
    """QRUN_API_KEY guards the server; neither the engine's command line nor its environment holds it."""
    server = serve(MODEL, "--port", "0", "--ctx", "1024", QRUN_API_KEY="s3cret-k3y")
    endpoint = server.wait_until_ready()
    without, _ = ask(endpoint, "GET", "/v1/models")
    with_key, _ = ask(endpoint, "GET", "/v1/models", Authorization="Bearer s3cret-k3y")
    children = server.process.children(recursive=True)
    seen = [f"{child.cmdline()} {child.environ()}" for child in children]

    assert (without, with_key) == (401, 200)
    assert seen
    assert not [text for text in seen if "s3cret-k3y" in text]


def test_served_names_are_told_and_answered_to(serve):
    """`--served-name` gives the id; all names stand in `aliases`, and others get 404."""
    server = serve(MODEL, "--port", "0", "--ctx", "1024", "--served-name", "my-model", "--served-name", "other")
    endpoint = server.wait_until_ready()
    entry = json.loads(ask(endpoint, "GET", "/v1/models")[1])["data"]
    asked = {"prompt": "One,", "max_tokens": 1}
    status, body = ask(endpoint, "POST", "/v1/completions", {**asked, "model": "My Model"})
    unknown, _ = ask(endpoint, "POST", "/v1/completions", {**asked, "model": "gpt-4o"})

    assert [one["id"] for one in entry] == ["my-model"]
    assert entry[0]["aliases"] == ["my-model", "other"]
    assert entry[0]["meta"]["n_ctx"] == 1024
    assert (status, unknown) == (200, 404)
    assert json.loads(body)["model"] == "my-model"


def test_arguments_for_the_engine_reach_it(serve, native_config, environ):
    """What stands after `--` takes the place of ours, and the server tells what the engine gives in truth."""
    data = native_config.environ["QRUN_DATA_DIR"]
    server = serve(MODEL, "--port", "0", "--ctx", "1024", "--", "-c", "768", QRUN_DATA_DIR=data)
    endpoint = server.wait_until_ready()
    entry = json.loads(ask(endpoint, "GET", "/v1/models")[1])["data"][0]

    assert entry["meta"]["n_ctx"] == 768


def refused(qrun_exe, environ, *args: str) -> tuple[int, str]:
    """Exit code and the one line of a server that does not start."""
    ended = subprocess.run(
        [qrun_exe, "serve", *args],
        env=environ,
        capture_output=True,
        text=True,
        timeout=READY_WITHIN_S,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert ended.stdout == ""
    assert ended.stderr.startswith("qrun: error: ")
    assert ended.stderr.count("\n") == 1
    return ended.returncode, ended.stderr


def test_port_in_use_is_one_line_and_exit_1(qrun_exe, environ):
    """Told before anything is started, with the way round."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, line = refused(qrun_exe, environ, MODEL, "--port", port)

    assert code == 1
    assert port in line
    assert "--port" in line


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ((), "MODEL"),
        ((MODEL, "--host", "0.0.0.0"), "--api-key"),
        ((MODEL, "--host", "no.such.host.invalid"), "--host"),
        ((MODEL, "--api-key", ""), "API key"),
        ((MODEL, "--served-name", "a,b"), "--served-name"),
        ((MODEL, "--port", "0", "--goal", "finetune"), "finetune"),
        ((MODEL, "stray"), "stray"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_exit_2(qrun_exe, environ, args, named):
    """Usage errors name the option."""
    code, line = refused(qrun_exe, environ, *args)

    assert code == 2
    assert named in line


def test_arguments_that_the_ready_engine_cannot_take_are_refused_by_name(qrun_exe, environ):
    """Exit 7 with the argument and the engine that could."""
    code, line = refused(qrun_exe, environ, MODEL, "--port", "0", "--", "--mlock")

    assert code == 7
    assert "--mlock" in line
    assert "--build" in line


def test_engine_that_fails_at_its_start_ends_the_server(qrun_exe, environ, demo_models, native_config, tmp_path):
    """Exit 7 with the engine's own reason and its log; the server does not linger."""
    args = (MODEL, "--port", "0", "--", "--rope-scaling", "nonsense")
    ended = subprocess.run(
        [qrun_exe, "serve", *args],
        env=environ | {"QRUN_DATA_DIR": native_config.environ["QRUN_DATA_DIR"]},
        capture_output=True,
        text=True,
        timeout=READY_WITHIN_S,
        check=False,
    )
    lines = ended.stderr.splitlines()

    assert ended.returncode == 7
    assert len(lines) == 2
    assert lines[1].startswith("qrun: error: llamacpp failed: ")
    assert str(tmp_path) in lines[1]


def test_name_that_does_not_exist_is_exit_3_with_the_nearest(qrun_exe, environ):
    """The same refusals as `qrun resolve`."""
    code, line = refused(qrun_exe, environ, "SmolLM2-135M-Instrukt", "--port", "0")

    assert code == 3
    assert "SmolLM2-135M-Instruct" in line


def test_second_signal_ends_at_once_and_the_engine_still_goes(serve):
    """Who presses Ctrl-C twice does not wait; the engine's keeper ends the engine."""
    server = serve(MODEL, "--port", "0", "--ctx", "1024")
    server.wait_until_ready()
    family = server.family()
    engine = [process for process in family[1:] if process.memory_info().rss > 50e6]
    for process in engine:
        process.suspend()  # so that the first signal's stop takes its time
    server.process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    server.process.send_signal(signal.SIGINT)
    code, _, _ = server.ended()

    assert code == 130
    assert engine
    wait_for(lambda: not any(process.is_running() for process in family), GONE_WITHIN_S)
