"""`qrun run`: the answer and nothing else on stdout, over a real engine; a chat on a real terminal."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

MODEL = "SmolLM2-135M-Instruct:Q4_1"
N_CTX = "256"  # so small a model may go on until its context is full

pytestmark = pytest.mark.engine


@pytest.fixture
def environ(engine_config, demo_models, tmp_path):
    """The environment of a qrun with the ready engine and the demo's models."""
    return dict(engine_config.environ) | {"QRUN_MODELS_DIR": str(demo_models), "QRUN_STATE_DIR": str(tmp_path)}


@pytest.fixture
def run(qrun_exe, environ):
    """`qrun run` with what stands on its standard input."""

    def run_once(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [qrun_exe, "run", "--ctx", N_CTX, *args],
            env=environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run_once


def engines_of(environ: dict[str, str]) -> list[psutil.Process]:
    """The engine processes that a command with this environment has left."""
    mark = f"QRUN_STATE_DIR={environ['QRUN_STATE_DIR']}"
    found = []
    for process in psutil.process_iter():
        try:
            if mark in Path(f"/proc/{process.pid}/environ").read_text(errors="replace").split("\0"):
                found.append(process)
        except OSError:
            continue  # gone, or somebody else's
    return found


def test_a_prompt_is_answered_on_stdout_alone(run, environ):
    """In a pipe the answer is all of stdout, stderr stays empty, and no engine is left."""
    ended = run(MODEL, "Say hello.")

    assert ended.returncode == 0
    assert ended.stdout.strip()
    assert ended.stdout.endswith("\n")
    assert ended.stderr == ""
    assert engines_of(environ) == []


def test_what_comes_through_a_pipe_is_the_prompt(run):
    """Without an argument standard input is the question."""
    ended = run(MODEL, stdin="Say hello.")

    assert ended.returncode == 0
    assert ended.stdout.strip()


def test_what_comes_through_a_pipe_is_put_below_the_prompt(run):
    """With both, both count: a text too long for the model makes the question too long."""
    ended = run(MODEL, "Sum this up.", stdin="word " * 1_000)

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("qrun: error: ")
    assert N_CTX in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_no_prompt_in_a_pipe_is_a_usage_error(run):
    """Exit 2 and one line, before any engine is started."""
    ended = run(MODEL)

    assert ended.returncode == 2
    assert ended.stderr == "qrun: error: the prompt is empty. Give it behind MODEL, or through a pipe.\n"


def test_a_reader_that_leaves_ends_the_answer_in_silence(qrun_exe, environ):
    """`qrun run MODEL PROMPT | head -c 1` complains of nothing and leaves no engine."""
    child = subprocess.Popen(
        [qrun_exe, "run", MODEL, "Tell me a long story."],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    first = child.stdout.read(1)
    child.stdout.close()
    complaint = child.stderr.read()
    child.stderr.close()
    child.wait(60)

    assert first
    assert complaint == b""
    assert engines_of(environ) == []


def test_ctrl_c_ends_the_command_and_its_engine(qrun_exe, environ):
    """SIGINT in the middle of the one answer: exit 130, no traceback, no engine left."""
    child = subprocess.Popen(
        [qrun_exe, "run", MODEL, "Tell me a long story."],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.read(1)
    child.send_signal(signal.SIGINT)
    _, complaint = child.communicate(timeout=60)

    assert child.returncode == 130
    assert complaint.strip() == b""  # click ends the line that ^C stands on
    assert engines_of(environ) == []


def test_an_engine_that_dies_under_the_answer_is_exit_7(qrun_exe, environ):
    """SIGKILL to the engine after the first words: one line of error, the engine's exit code, nothing said twice."""
    child = subprocess.Popen(
        [qrun_exe, "run", "--ctx", "8192", MODEL, "Tell me a very long story, and then another."],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    child.stdout.read(1)
    keeper = next(one for one in engines_of(environ) if "keeper.py" in " ".join(one.cmdline()))
    keeper.children()[0].kill()
    _, complaint = child.communicate(timeout=60)

    assert child.returncode == 7
    assert complaint.splitlines()[-1].startswith("qrun: error: the engine failed: ")
    assert len(complaint.splitlines()) <= 2  # that it was lost and is started again, and the error
    assert engines_of(environ) == []


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal is POSIX's")
def test_a_chat_on_a_terminal_answers_and_ends_with_bye(qrun_exe, environ):
    """On a real terminal without a prompt: two questions, two answers, /bye, exit 0."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [qrun_exe, "run", "--ctx", N_CTX, MODEL], env=environ, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    screen = Screen(ours)
    try:
        screen.wait_for(b"> ")
        for question in (b"Say hello.", b"And goodbye."):
            os.write(ours, question + b"\n")
            screen.wait_for(question)
            answer = screen.wait_for(b"> ")
            assert answer.replace(b"\r\n", b"").strip(b"> ")
        os.write(ours, b"/bye\n")
        code = child.wait(60)
    finally:
        child.kill()
        child.wait()
        os.close(ours)

    assert code == 0
    assert engines_of(environ) == []


class Screen:
    """What a terminal shows, read as it comes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._unread = b""

    def wait_for(self, mark: bytes, within_s: float = 90) -> bytes:
        """All up to `mark`, which is taken too."""
        deadline = time.monotonic() + within_s
        while mark not in self._unread:
            assert time.monotonic() < deadline, self._unread
            self._unread += os.read(self._descriptor, 4096)
        before, _, self._unread = self._unread.partition(mark)
        return before


@pytest.mark.slow
def test_yes_installs_the_engine_that_is_missing(run, environ, tmp_path):
    """With --yes a run on a machine without an engine installs it, and answers."""
    environ["QRUN_DATA_DIR"] = str(tmp_path / "data")

    ended = run("--yes", MODEL, "Say hello.")

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip()
    assert len(ended.stderr.splitlines()) == 1  # that an engine is being installed
