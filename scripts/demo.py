"""The demo's second half, run by scripts/demo in the environment it made: engine, models, decision, server, answer.

Everything goes through the installed `qrun` command and the real `openai` client; nothing of qrun is imported.
"""

import argparse
import os
import select
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from make_demo_models import DemoModelsFailed, make_demo_models

MODEL = "SmolLM2-135M-Instruct"
QUESTION = "What is gravity? Answer in one sentence."
QRUN = Path(sysconfig.get_path("scripts")) / "qrun"
AFTER_FIRST = "the rest of the answer"
READY_WITHIN_S = 120  # the model loads in under a second; a machine that swaps may need longer
STOPPED_WITHIN_S = 30

# A machine with less free memory than the largest of the demo's quants needs, whatever the KV cache's type: qrun keeps
# 2 GiB of RAM for the system, and of the rest Q8_0 needs 0.25 GiB, Q5_1 0.22 (8192 tokens of context).
TIGHT_MACHINE = f"""\
name = "a small machine"
os = "linux"
arch = "x86_64"
cpu_cores = 2
ram_bytes = {4 * 2**30}
ram_free_bytes = {2 * 2**30 + 238 * 2**20}
"""


class DemoFailed(Exception):
    """The demo cannot go on; the message is one line for a person."""


class Clock:
    """Where the time went: named steps in the order they were taken."""

    def __init__(self, setup_s: float) -> None:
        self.steps: list[tuple[str, float]] = [("environment, qrun installed (with downloads)", setup_s)]

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure the block as one step, and say that it begins."""
        print(f"\n== {name}", flush=True)
        started = time.monotonic()
        yield
        self.steps.append((name, time.monotonic() - started))

    def table(self) -> str:
        """The steps in seconds, and when the first token came."""
        until_first = sum(seconds for name, seconds in self.steps if name != AFTER_FIRST)
        rows = [*self.steps, ("from the start of this script to the first token", until_first)]
        return "\n".join(f"  {seconds:7.1f} s  {name}" for name, seconds in rows)


def main() -> int:
    """The command line: 0 where an answer came, 130 where the user ended it, else 1 and one line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--setup-s", type=float, required=True)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    try:
        demo(asked.home, Clock(asked.setup_s), check=asked.check)
    except (DemoFailed, DemoModelsFailed, OSError) as error:
        print(f"scripts/demo: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def demo(home: Path, clock: Clock, *, check: bool) -> None:
    """Every step in turn. Raises DemoFailed where one fails."""
    environ = os.environ | {f"QRUN_{name}_DIR": str(home / name.lower()) for name in ("DATA", "CACHE", "STATE")}
    models = home / "models"
    with clock.step("the ready llama.cpp engine (with its download)"):
        qrun(environ, "engines", "install", "llamacpp", "--yes")
    with clock.step(f"a folder of quant repos of {MODEL} (with the download of its Q4_1 file)"):
        make_demo_models(models, cache=home / "cache")
    with clock.step("which quant for this machine?"):
        qrun(environ, "resolve", MODEL, "--models-dir", str(models))
    with clock.step("which quant where memory is tight?"):
        tight = home / "tight.toml"
        tight.write_text(TIGHT_MACHINE)
        qrun(environ, "resolve", MODEL, "--models-dir", str(models), "--hardware", str(tight))
    serve_and_ask(environ, models, clock, check=check)


def qrun(environ: dict[str, str], *args: str) -> None:
    """Run one qrun command, its output shown."""
    print(f"$ qrun {' '.join(args)}", flush=True)
    if subprocess.run([QRUN, *args], env=environ, check=False).returncode:
        raise DemoFailed(f"qrun {args[0]} failed (its reason stands above)")


def serve_and_ask(environ: dict[str, str], models: Path, clock: Clock, *, check: bool) -> None:
    """Start the server, ask it once, then leave it up until Ctrl-C, or stop it where only a check was asked for."""
    args = ["serve", MODEL, "--models-dir", str(models), "--port", "0"]
    server = None
    try:
        with clock.step("qrun serve, until it is ready"):
            print(f"$ qrun {' '.join(args)}", flush=True)
            # A session of its own: Ctrl-C reaches the demo, and the demo stops the server.
            server = subprocess.Popen([QRUN, *args], env=environ, stdout=subprocess.PIPE, start_new_session=True)
            url = ready_url(server)
        ask(url, clock)
        print(f"\n== where the time went\n{clock.table()}", flush=True)
        if not check:
            stay(server, url)
    finally:
        if server is not None:
            stop(server)


def ready_url(server: subprocess.Popen) -> str:
    """The address that `qrun serve` prints when its model answers. Raises DemoFailed where none comes."""
    readable, _, _ = select.select([server.stdout], [], [], READY_WITHIN_S)
    if not readable:
        raise DemoFailed(f"qrun serve was not ready within {READY_WITHIN_S} s")
    url = server.stdout.readline().decode().strip()
    if not url:
        raise DemoFailed(f"qrun serve ended with exit code {server.wait()} (its reason stands above)")
    return url


def ask(url: str, clock: Clock) -> None:
    """One question through the openai client, the answer printed as it comes. Raises DemoFailed where none came."""
    import openai

    client = openai.OpenAI(base_url=url, api_key="none-needed", max_retries=0)
    asked = time.monotonic()
    first = None
    answer = ""
    print(f"\n== the answer, streamed through the openai client\n> {QUESTION}", flush=True)
    try:
        for chunk in client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": QUESTION}], max_tokens=64, temperature=0, stream=True
        ):
            if text := chunk.choices[0].delta.content if chunk.choices else None:
                first = first or time.monotonic()
                answer += text
                print(text, end="", flush=True)
    except openai.OpenAIError as error:
        raise DemoFailed(f"the question failed: {error}") from error
    print(flush=True)
    if first is None or not answer.strip():
        raise DemoFailed("the answer was empty")
    clock.steps.append(("the question, until its first token", first - asked))
    clock.steps.append((AFTER_FIRST, time.monotonic() - first))


def stay(server: subprocess.Popen, url: str) -> None:
    """Leave the server up for the user, until Ctrl-C or until it ends."""
    print(
        f"\nThe server stays up: {url} (any OpenAI client; no key needed on this machine). Stop it with Ctrl-C.\n"
        f"  curl {url}/chat/completions -H 'Content-Type: application/json' \\\n"
        f'    -d \'{{"model": "{MODEL}", "messages": [{{"role": "user", "content": "Hello!"}}]}}\'',
        flush=True,
    )
    if server.wait():
        raise DemoFailed(f"qrun serve ended with exit code {server.returncode}")


def stop(server: subprocess.Popen) -> None:
    """Stop the server as Ctrl-C would. Raises DemoFailed where it does not end."""
    if server.poll() is not None:
        return
    server.send_signal(signal.SIGINT)
    try:
        server.wait(STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        server.kill()
        raise DemoFailed(f"qrun serve did not stop within {STOPPED_WITHIN_S} s") from None
    print("server stopped")


if __name__ == "__main__":
    # An end by SIGTERM stops the server too: it becomes the exception that Ctrl-C is.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
