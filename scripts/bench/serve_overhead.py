"""What qrun costs while it serves: tokens/s and time to first token through `qrun serve` against the same engine
alone, alternating in one run.

    python scripts/bench/serve_overhead.py --models-dir DIR [--out docs/measurements/serve-overhead.md]

Both servers are up all the time, one of them is asked at a time; a pair is one block of requests to each, in turns the
one or the other first. All answers have the same fixed length at temperature 0. Needs psutil, and an engine that
qrun finds: the native one by a data folder that has it (docs/measurements/README.md).
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
from report import machine_line, median_range, table
from servers import EngineCommand, ServerFailed, bare_engine, engine_command, free_port, qrun_serve, wait_until_ready
from stream import Block, StreamFailed, Target, run_block

MODEL = "SmolLM2-135M-Instruct"
AIM = 0.95


@dataclass(frozen=True, slots=True)
class Pair:
    """One block through qrun and one to the bare engine, with the processor seconds that qrun itself took."""

    qrun: Block
    bare: Block
    qrun_cpu_s: float

    @property
    def ratio(self) -> float:
        """Tokens/s through qrun over tokens/s of the bare engine."""
        return self.qrun.tokens_per_s / self.bare.tokens_per_s


def main() -> int:
    """The command line: 0 where the aim is met at every number of clients, 3 where it is not, 1 on failure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models-dir", required=True)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--n-predict", type=int, default=128)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--out", type=Path, help="a Markdown file to write the results to")
    asked = parser.parse_args()
    try:
        report, met = measure(asked)
    except (ServerFailed, StreamFailed) as error:
        print(f"serve_overhead: {error}", file=sys.stderr)
        return 1
    print(report)
    if asked.out:
        asked.out.write_text(report + "\n")
    return 0 if met else 3


def measure(asked: argparse.Namespace) -> tuple[str, bool]:
    """The report in Markdown, and whether the aim is met. Raises ServerFailed and StreamFailed."""
    before = machine_line()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port, bare_port = free_port(), free_port()
        args = [asked.model, "--models-dir", asked.models_dir, "--ctx", "1024", "--parallel", str(max(asked.clients))]
        qrun = stack.enter_context(qrun_serve(args, port=port, log=folder / "qrun.log"))
        wait_until_ready(qrun, port)
        command = engine_command(qrun)
        wait_until_ready(stack.enter_context(bare_engine(command, port=bare_port, log=folder / "bare.log")), bare_port)
        targets = Target(port, asked.model), Target(bare_port, asked.model)
        shown = {n: pairs_of(targets, qrun, n, asked) for n in asked.clients}
    return report_of(shown, command, before, asked), all(
        median(p.ratio for p in pairs) >= AIM for pairs in shown.values()
    )


def pairs_of(targets: Sequence[Target], qrun: psutil.Process, n_clients: int, asked: argparse.Namespace) -> list[Pair]:
    """The measured pairs at one number of clients, after one of each that is thrown away."""
    for target in targets:
        run_block(target, prompts(n_clients, "warm-up"), n_predict=asked.n_predict)
    pairs = []
    for number in range(asked.pairs):
        pairs.append(
            one_pair(targets, qrun, prompts(n_clients, f"round {number}"), asked.n_predict, qrun_first=not number % 2)
        )
        print(
            f"{n_clients} clients, pair {number + 1} of {asked.pairs}: {pairs[-1].ratio:.3f}",
            file=sys.stderr,
            flush=True,
        )
    return pairs


def one_pair(
    targets: Sequence[Target], qrun: psutil.Process, asks: list[str], n_predict: int, *, qrun_first: bool
) -> Pair:
    """The same prompts to both, one after the other."""
    ours, bare = targets
    early = None if qrun_first else run_block(bare, asks, n_predict=n_predict)
    cpu_s = sum(qrun.cpu_times()[:2])
    block = run_block(ours, asks, n_predict=n_predict)
    cpu_s = sum(qrun.cpu_times()[:2]) - cpu_s
    return Pair(block, early or run_block(bare, asks, n_predict=n_predict), cpu_s)


def prompts(n_clients: int, round_name: str) -> list[str]:
    """One prompt a client, no two alike: no slot can answer from what another has read."""
    return [f"{round_name}, client {number}: tell me a long story about the sea." for number in range(n_clients)]


def report_of(shown: dict[int, list[Pair]], command: EngineCommand, before: str, asked: argparse.Namespace) -> str:
    """The Markdown page."""
    rows = [
        (
            n_clients,
            median_range([p.qrun.tokens_per_s for p in pairs], 1),
            median_range([p.bare.tokens_per_s for p in pairs], 1),
            f"**{median_range([p.ratio for p in pairs])}**",
            median_range([1000 * median(p.qrun.ttft_s) for p in pairs], 1),
            median_range([1000 * median(p.bare.ttft_s) for p in pairs], 1),
            f"{1e6 * median(p.qrun_cpu_s / p.qrun.n_tokens for p in pairs):.0f}",
        )
        for n_clients, pairs in shown.items()
    ]
    head = (
        "clients",
        "tokens/s through qrun",
        "tokens/s alone",
        "ratio",
        "TTFT qrun, ms",
        "TTFT alone, ms",
        "qrun's CPU, us/token",
    )
    intro = (
        f"{before}. {asked.model}, {asked.pairs} pairs a row, {asked.n_predict} tokens an answer, streamed, "
        f"temperature 0. Medians, with the least and the greatest; the ratio is of each pair. Aim: at least {AIM}."
    )
    engine = f"The engine, in both: `{command.shown()}`"
    made = "Made by `python scripts/bench/serve_overhead.py --models-dir DIR`."
    return "\n\n".join(["# What qrun costs while it serves", intro, table(head, rows), engine, made])


if __name__ == "__main__":
    sys.exit(main())
