#!/usr/bin/env python3
"""What a load short of memory comes to, and what serving teaches: the tables of docs/measurements/closed-loop.md.

    scripts/bench/closed_loop.py LLAMA_SERVER MODELS_DIR

LLAMA_SERVER is a native llama-server, MODELS_DIR a folder with scripts/make_demo_models.py's models. `qrun` is taken
from PATH. The first table runs `qrun serve` with the server under `ulimit -v`, which no part of qrun knows of; the
second asks `qrun resolve` before and after a server has answered 256 tokens; rates are tokens/s.
"""

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

MODEL = "SmolLM2-135M-Instruct"
QUANTS = ("Q4_0", "Q4_1", "Q5_1", "Q8_0")
LIMITS_MIB = (None, 1200, 850, 600)
SERVED = "Q4_1"
TRIES = 8  # a rate counts only where the engine had the processor


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", type=Path)
    parser.add_argument("models", type=Path)
    arguments = parser.parse_args()
    print("| `ulimit -v`, MiB | outcome | what it runs with, or the error |\n|---|---|---|")
    for limit in LIMITS_MIB:
        with tempfile.TemporaryDirectory(prefix="qrun-loop-") as folder:
            environ = environ_of(arguments, Path(folder), limit)
            code, said = served(environ, "--ctx", "8192", "--parallel", "4")
            print(f"| {limit or 'none'} | {'serves' if code is None else f'exit {code}'} | {said} |", flush=True)
    with tempfile.TemporaryDirectory(prefix="qrun-loop-") as folder:
        environ = environ_of(arguments, Path(folder), None)
        before = {quant: chosen(environ, quant) for quant in QUANTS}
        measure(environ, SERVED)
        after = {quant: chosen(environ, quant) for quant in QUANTS}
        measured = {quant: measure(environ, quant) for quant in QUANTS}
    print(f"\n| quant | predicted | after serving {SERVED} | source | measured |\n|---|---|---|---|---|")
    for quant in QUANTS:
        was, then = before[quant]["speed"]["decode_tps"], after[quant]["speed"]["decode_tps"]
        source, seen = after[quant]["speed"]["source"], measured[quant]
        print(f"| {quant} | {was:.0f} | {then:.0f} | {source} | {'busy' if seen is None else f'{seen:.0f}'} |")
    for quant in (SERVED, "Q8_0"):
        told = [line for line in after[quant]["why"] if line not in before[quant]["why"]]
        print(f"\nWhat `why` says of {quant} since: {'; '.join(told) or 'nothing'}")
    return 0


def environ_of(arguments: argparse.Namespace, folder: Path, limit_mib: int | None) -> dict[str, str]:
    """The environment of qrun with the server, limited or not, and a state folder of its own."""
    script = folder / "llama-server"
    limit = f"ulimit -v {limit_mib * 1024}\nexport MALLOC_ARENA_MAX=1\n" if limit_mib else ""
    script.write_text(f'#!/bin/sh\n{limit}exec "{arguments.server}" "$@"\n')
    script.chmod(0o755)
    own = {"QRUN_LLAMA_SERVER": str(script), "QRUN_MODELS_DIR": str(arguments.models), "QRUN_STATE_DIR": str(folder)}
    return dict(os.environ) | own


def served(environ: dict[str, str], *options: str, n_tokens: int = 8, quant: str = SERVED) -> tuple[int | None, str]:
    """Serve, ask once, end it: None and the line about steps, or the exit code and the error."""
    words = ["qrun", "serve", f"{MODEL}:{quant}", "--port", "0", *options]
    with subprocess.Popen(
        words, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        endpoint = server.stdout.readline().strip()
        if endpoint:
            ask(endpoint, n_tokens)
            server.send_signal(signal.SIGTERM)
        lines = server.stderr.read().strip().splitlines()
    said = lines[-1].removeprefix("qrun: ").partition(" Its log:")[0] if len(lines) > 1 else "as decided"
    return (None if endpoint else server.returncode), said


def ask(endpoint: str, n_tokens: int) -> None:
    """One completion of so many tokens."""
    connection = http.client.HTTPConnection(endpoint.split("/")[2], timeout=300)
    body = {"prompt": "Once upon a time", "max_tokens": n_tokens, "temperature": 0, "ignore_eos": True}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    connection.getresponse().read()
    connection.close()


def chosen(environ: dict[str, str], quant: str) -> dict[str, object]:
    """The decision for one quant."""
    words = ["qrun", "resolve", f"{MODEL}:{quant}", "--json"]
    return json.loads(subprocess.run(words, env=environ, capture_output=True, check=True).stdout)["chosen"]


def measure(environ: dict[str, str], quant: str) -> float | None:
    """The rate that serving this quant shows, from what qrun keeps of it; None where others had the processor."""
    for _ in range(TRIES):
        served(environ, n_tokens=256, quant=quant)
        speed = chosen(environ, quant)["speed"]
        if speed["source"] == "measured":
            return float(speed["decode_tps"])
    return None


if __name__ == "__main__":
    sys.exit(main())
