"""How long a decision takes: a stored one, and a fresh one over more than 2,500 repos of an emulated Hub.

    python scripts/bench/decision_speed.py [--runs 10] [--out docs/measurements/decision-speed.md]

Whole processes, `qrun resolve MODEL --json`, from their start to their end, for a machine that a file describes. Fresh:
nothing is cached anywhere. Stored: the same again. The Hub is tests/hub_emulator.py in a process of its own on this
machine, so its time is in the figures, and a real network's is not. It serves the listing and its copies under other
owners, GGUFs with true headers where their dimensions are known. Run it with an interpreter that has qrun installed,
not editable: an editable install pays for its import hook. The Hub needs what the tests need (`--hub-python`).
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from report import machine_line, median_range, table

TESTS = Path(__file__).resolve().parents[2] / "tests"
STORED_AIM_S, FRESH_AIM_S = 0.25, 2.0
MODELS = ("Llama-3-8B-Instruct", "qwen3 30b a3b", "gemma 3 27b it", "meta-llama/Llama-3.1-8B-Instruct")
HARDWARE = """name = "a card of 24 GiB"
os = "linux"
arch = "x86_64"
cpu_cores = 16
ram_bytes = 68719476736
[[gpu]]
name = "NVIDIA GeForce RTX 4090"
backend = "cuda"
memory_bytes = 25757220864
bandwidth_bytes_per_s = 1008e9
compute_capability = "8.9"
"""
# In the Hub's process: serve until standard input ends.
HUB = """import sys
from hub_emulator import HubEmulator
with HubEmulator() as hub:
    hub.add_listing(tags="old", copies=1, headers=True)
    print(hub.endpoint, len(hub.shelf.repos), flush=True)
    sys.stdin.read()
"""


@dataclass
class Times:
    """Wall and processor seconds of one model's decisions."""

    fresh: list[tuple[float, float]] = field(default_factory=list)
    stored: list[tuple[float, float]] = field(default_factory=list)


def main() -> int:
    """The command line: 0 where both medians meet their aims for every model, 3 where one does not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--hub-python", default=sys.executable, help="the interpreter that serves the Hub")
    parser.add_argument("--out", type=Path, help="a Markdown file to write the results to")
    asked = parser.parse_args()
    with served_hub(asked.hub_python) as (endpoint, n_repos):
        before = machine_line()
        times = {model: times_of(model, endpoint, asked.runs) for model in MODELS}
    report = report_of(before, times, n_repos=n_repos, runs=asked.runs)
    print(report)
    if asked.out:
        asked.out.write_text(report + "\n")
    return 0 if all(map(meets_aims, times.values())) else 3


@contextmanager
def served_hub(python: str) -> Iterator[tuple[str, int]]:
    """The emulated Hub's endpoint, and how many repos it has."""
    argv = [python, "-c", HUB]
    with subprocess.Popen(argv, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        endpoint, n_repos = process.stdout.readline().split()
        yield endpoint, int(n_repos)
        process.stdin.close()


def times_of(model: str, endpoint: str, runs: int) -> Times:
    """`runs` fresh decisions, each followed by two stored ones."""
    times = Times()
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            hardware = home / "machine.toml"
            hardware.write_text(HARDWARE)
            argv = [sys.executable, "-m", "qrun", "resolve", model, "--hardware", str(hardware), "--json"]
            times.fresh.append(seconds_of(argv, environment(home, endpoint)))
            times.stored += [seconds_of(argv, environment(home, endpoint)) for _ in range(2)]
    return times


def seconds_of(argv: list[str], env: Mapping[str, str]) -> tuple[float, float]:
    """Wall and processor time of one process. Raises CalledProcessError where it fails."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def environment(home: Path, endpoint: str) -> dict[str, str]:
    """A user's who has nothing yet."""
    folders = {f"QRUN_{name.upper()}_DIR": str(home / name) for name in ("data", "cache", "state")}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("QRUN_", "HF_"))}
    return kept | folders | {"HF_HOME": str(home / "hf"), "HF_ENDPOINT": endpoint}


def meets_aims(times: Times) -> bool:
    """Both medians."""
    stored, fresh = (median(wall for wall, _ in some) for some in (times.stored, times.fresh))
    return stored < STORED_AIM_S and fresh < FRESH_AIM_S


def report_of(before: str, times: Mapping[str, Times], *, n_repos: int, runs: int) -> str:
    """The page."""
    rows = [(f"`{model}`", *cells_of(one.stored), *cells_of(one.fresh)) for model, one in times.items()]
    head = (
        "model", f"stored (aim: under {STORED_AIM_S})", "its processor time",
        f"fresh (aim: under {FRESH_AIM_S:g})", "its processor time",
    )  # fmt: skip  # a row of a table
    return f"""# How long a decision takes

{before} at the start, {os.getloadavg()[0]:.2f} at the end. Seconds of whole processes,
`qrun resolve MODEL --json`, over {n_repos:,} repos of the emulated Hub, which runs on the same processors: medians,
with the least and the greatest, of {runs} fresh decisions and twice as many stored ones.

{table(head, rows)}

Made by `python scripts/bench/decision_speed.py`."""


def cells_of(times: list[tuple[float, float]]) -> tuple[str, str]:
    """Wall and processor seconds."""
    return f"**{median_range([wall for wall, _ in times])}**", median_range([processor for _, processor in times])


if __name__ == "__main__":
    sys.exit(main())
