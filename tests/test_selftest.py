"""The self-test: an engine counts when it computes what is known, not when it starts."""

import subprocess
import sys
from pathlib import Path

import pytest

from qrun.errors import EngineFailed
from qrun.runner import Engine, Launch, UnixAddress
from qrun.selftest import PROMPT, RIGHT_ANSWER, self_test
from qrun_llamacpp import LlamaCppRunner

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "src" / "qrun" / "data" / "selftest.gguf"
ANY = Engine("fake", "system", None, Path("/unused"), "test")
SERVER = """
import http.server, os, socketserver, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(b"{}")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(sys.argv[2].encode())

    def answer(self, body):
        if not body:
            os._exit(3)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "client"

socketserver.UnixStreamServer(sys.argv[1], Handler).serve_forever()
"""


class FakeRunner:
    """A runner whose engine starts, is healthy, and answers with fixed bytes."""

    name = "fake"
    formats = frozenset({"gguf"})

    def __init__(self, answer: str) -> None:
        self._answer = answer

    def launch(self, _engine, plan):
        """The server above."""
        path = plan.private_dir / "1.sock"
        return Launch((sys.executable, "-c", SERVER, str(path), self._answer), UnixAddress(path))

    def explain_failure(self, _log):
        """It has nothing to say."""


@pytest.mark.engine
@pytest.mark.parametrize("flavour", ["native", "ready"])
def test_both_engines_pass(flavour, request, engine_config):
    """The tiny model's answer is the known one, over the socket, on native and ready builds."""
    executable = request.getfixturevalue({"native": "native_server", "ready": "ready_python"}[flavour])

    passed = self_test(LlamaCppRunner(), Engine("llamacpp", flavour, "1", executable, "test"), engine_config)

    assert passed.answer == RIGHT_ANSWER == "def"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ('{"choices": [{"text": "xyz"}]}', "answered 'xyz' where 'def' is right"),
        ('{"choices": []}', "got no answer"),
        ('{"error": "no"}', "got no answer"),
        ("not JSON", "got no answer"),
        ("", "got no answer"),
    ],
)
def test_an_engine_that_starts_and_does_not_compute_fails(engine_config, answer, reason):
    """Healthy is not enough: a wrong answer, none, or a death while answering is a failure with its reason."""
    with pytest.raises(EngineFailed, match=reason) as failed:
        self_test(FakeRunner(answer), ANY, engine_config)

    assert failed.value.log_path is not None


def test_the_model_is_made_by_its_script_and_small(tmp_path):
    """What is shipped is what the script writes, byte for byte, and well under 200 KB."""
    script = ROOT / "scripts" / "make_selftest_model.py"
    subprocess.run([sys.executable, script, tmp_path / "new.gguf"], check=True, capture_output=True)

    assert (tmp_path / "new.gguf").read_bytes() == MODEL.read_bytes()
    assert MODEL.stat().st_size < 100_000


def test_the_right_answer_continues_the_prompt():
    """The model's rule, by which the answer is known: each byte is followed by the next one."""
    assert bytes(byte + len(PROMPT) for byte in PROMPT.encode()) == RIGHT_ANSWER.encode()
