"""How long starting takes: `qrun --help` against `python -c pass`, and `qrun serve` to its first token against the same
engine alone, alternating in one run.

    python scripts/bench/startup.py --models-dir DIR [--out docs/measurements/startup.md]

Run it with an interpreter that has qrun installed, not editable: an editable install pays for its import hook. Needs
psutil, and an engine that qrun finds.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil
from report import machine_line, median_range, table
from servers import EngineCommand, ServerFailed, bare_engine, engine_command, free_port, qrun_serve, wait_until_ready
from stream import StreamFailed, Target, run_block

MODEL = "SmolLM2-135M-Instruct"
HELP_AIM_S = 0.15


def main() -> int:
    """The command line: 0 where `qrun --help` meets its aim, 3 where it does not, 1 on failure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models-dir", required=True)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--helps", type=int, default=30)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--out", type=Path, help="a Markdown file to write the results to")
    asked = parser.parse_args()
    before = machine_line()
    helps, bares = help_times(asked.helps)
    resolves = resolve_times(asked)
    try:
        served, alone = start_times(asked)
    except (ServerFailed, StreamFailed) as error:
        print(f"startup: {error}", file=sys.stderr)
        return 1
    report = report_of(before, asked.model, helps=helps, bares=bares, resolves=resolves, served=served, alone=alone)
    print(report)
    if asked.out:
        asked.out.write_text(report + "\n")
    return 0 if median(helps) < HELP_AIM_S else 3


def report_of(
    before: str,
    model: str,
    *,
    helps: list[float],
    bares: list[float],
    resolves: list[float],
    served: list[float],
    alone: list[float],
) -> str:
    """The Markdown page."""
    more = [ours - theirs for ours, theirs in zip(served, alone, strict=True)]
    rows = [
        (f"`qrun --help` (aim: under {HELP_AIM_S})", f"**{median_range(helps)}**", len(helps)),
        ("`python -c pass`", median_range(bares), len(bares)),
        (f"`qrun resolve {model}`: the decision alone", median_range(resolves), len(resolves)),
        (f"`qrun serve {model}` to the first token of a first request", f"**{median_range(served)}**", len(served)),
        ("the same engine alone to its first token", median_range(alone), len(alone)),
        ("what qrun adds, pair by pair", median_range(more), len(more)),
    ]
    intro = f"{before}. Wall seconds: medians, with the least and the greatest; the sides alternate."
    made = "Made by `python scripts/bench/startup.py --models-dir DIR`."
    return "\n\n".join(["# How long starting takes", intro, table(("what", "seconds", "runs"), rows), made])


def help_times(runs: int) -> tuple[list[float], list[float]]:
    """Wall seconds of `qrun --help` and of an interpreter that does nothing, in turns; the first of each is dropped."""
    qrun = str(Path(sys.executable).with_name("qrun"))
    times = [(_wall_s([qrun, "--help"]), _wall_s([sys.executable, "-c", "pass"])) for _ in range(runs + 1)]
    helps, bares = zip(*times[1:], strict=True)
    return list(helps), list(bares)


def resolve_times(asked: argparse.Namespace) -> list[float]:
    """Wall seconds of `qrun resolve`: what `qrun serve` does before it starts an engine."""
    qrun = str(Path(sys.executable).with_name("qrun"))
    return [_wall_s([qrun, "resolve", asked.model, "--models-dir", asked.models_dir]) for _ in range(asked.starts)]


def _wall_s(argv: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def start_times(asked: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Wall seconds from the command to the first token, of `qrun serve` and of the bare engine, in turns."""
    served: list[float] = []
    alone: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "servers.log"
        for number in range(asked.starts + 1):
            seconds, command = served_s(asked, log)
            bare_s = alone_s(command, asked.model, log)
            print(
                f"start {number} of {asked.starts}: {seconds:.2f} s, alone {bare_s:.2f} s", file=sys.stderr, flush=True
            )
            if number:  # the first pair fills the page cache
                served.append(seconds)
                alone.append(bare_s)
    return served, alone


def served_s(asked: argparse.Namespace, log: Path) -> tuple[float, EngineCommand]:
    """Seconds from `qrun serve` to its first token, and what it ran its engine with."""
    port = free_port()
    args = [asked.model, "--models-dir", asked.models_dir, "--ctx", "1024", "--parallel", "1"]
    started = time.perf_counter()
    with qrun_serve(args, port=port, log=log) as qrun:
        return first_token_s(qrun, port, asked.model, started), engine_command(qrun)


def alone_s(command: EngineCommand, model: str, log: Path) -> float:
    """Seconds from the engine's own start to its first token."""
    port = free_port()
    started = time.perf_counter()
    with bare_engine(command, port=port, log=log) as engine:
        return first_token_s(engine, port, model, started)


def first_token_s(server: psutil.Process, port: int, model: str, started: float) -> float:
    """Seconds from `started` until a first request's first token, asked as soon as the server says that it is ready."""
    wait_until_ready(server, port)
    ready_s = time.perf_counter() - started
    return ready_s + run_block(Target(port, model), ["Say hello."], n_predict=8).ttft_s[0]


if __name__ == "__main__":
    sys.exit(main())
