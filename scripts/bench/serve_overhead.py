"""What qrun costs while it serves: tokens/s and time to first token through `qrun serve` against the same engine
alone, alternating in one run.

    python scripts/bench/serve_overhead.py --models-dir DIR [--out docs/measurements/serve-overhead.md]

Both servers are up all the time, one of them is asked at a time; a pair is one block of requests to each, in turns the
one or the other first. All answers have the same fixed length at temperature 0. A pair beside which other programs took
more than a twentieth of the machine is measured again; the report says how many were. Needs psutil, and an engine that
qrun finds: the native one by a data folder that has it (docs/measurements/README.md).
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
from quiet import Others
from report import machine_line, median_range, table
from servers import EngineCommand, ServerFailed, bare_engine, engine_command, free_port, qrun_serve, wait_until_ready
from stream import Block, StreamFailed, Target, run_block

MODEL = "SmolLM2-135M-Instruct"
AIM = 0.95
MOST_FOR_OTHERS = 0.05  # of all cores: beside more than that a pair says nothing of qrun
MOST_DISTURBED = 10  # times the pairs asked for


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


@dataclass(frozen=True, slots=True)
class Sides:
    """The two servers, and how each is asked."""

    qrun: psutil.Process
    bare: psutil.Process
    ours: Target
    theirs: Target


@dataclass(slots=True)
class Row:
    """What was measured at one number of clients; `disturbed` pairs were thrown away."""

    n_clients: int
    pairs: list[Pair] = field(default_factory=list)
    disturbed: int = 0


class NeverQuiet(Exception):
    """Other programs took too much of the machine for too long."""


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
    except (ServerFailed, StreamFailed, NeverQuiet) as error:
        print(f"serve_overhead: {error}", file=sys.stderr)
        return 1
    print(report)
    if asked.out:
        asked.out.write_text(report + "\n")
    return 0 if met else 3


def measure(asked: argparse.Namespace) -> tuple[str, bool]:
    """The report in Markdown, and whether the aim is met. Raises ServerFailed, StreamFailed and NeverQuiet."""
    before = machine_line()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port, bare_port = free_port(), free_port()
        args = [asked.model, "--models-dir", asked.models_dir, "--ctx", "1024", "--parallel", str(max(asked.clients))]
        qrun = stack.enter_context(qrun_serve(args, port=port, log=folder / "qrun.log"))
        wait_until_ready(qrun, port)
        command = engine_command(qrun)
        bare = stack.enter_context(bare_engine(command, port=bare_port, log=folder / "bare.log"))
        wait_until_ready(bare, bare_port)
        sides = Sides(qrun, bare, Target(port, asked.model), Target(bare_port, asked.model))
        rows = [measure_row(sides, n_clients, asked) for n_clients in asked.clients]
    return report_of(rows, command, before, asked), all(median(p.ratio for p in row.pairs) >= AIM for row in rows)


def measure_row(sides: Sides, n_clients: int, asked: argparse.Namespace) -> Row:
    """The pairs at one number of clients, after one that is thrown away. Raises NeverQuiet."""
    one_pair(sides, prompts(n_clients, "warm-up"), asked.n_predict, qrun_first=True)
    row = Row(n_clients)
    while len(row.pairs) < asked.pairs:
        number = len(row.pairs) + row.disturbed
        others = Others([sides.qrun, sides.bare])
        # The order hangs on the pairs that count, so that both sides are first equally often.
        qrun_first = not len(row.pairs) % 2
        pair = one_pair(sides, prompts(n_clients, f"round {number}"), asked.n_predict, qrun_first=qrun_first)
        share = others.share()
        said = f"{n_clients} clients, pair {len(row.pairs) + 1} of {asked.pairs}: {pair.ratio:.3f}"
        print(f"{said}, other programs {share:.0%}", file=sys.stderr, flush=True)
        if share <= MOST_FOR_OTHERS:
            row.pairs.append(pair)
        else:
            row.disturbed += 1
            if row.disturbed > MOST_DISTURBED * asked.pairs:
                raise NeverQuiet(f"other programs disturbed {row.disturbed} pairs: measure on a quieter machine")
    return row


def one_pair(sides: Sides, asks: list[str], n_predict: int, *, qrun_first: bool) -> Pair:
    """The same prompts to both, one after the other."""
    early = None if qrun_first else run_block(sides.theirs, asks, n_predict=n_predict)
    cpu_s = sum(sides.qrun.cpu_times()[:2])
    block = run_block(sides.ours, asks, n_predict=n_predict)
    cpu_s = sum(sides.qrun.cpu_times()[:2]) - cpu_s
    return Pair(block, early or run_block(sides.theirs, asks, n_predict=n_predict), cpu_s)


def prompts(n_clients: int, round_name: str) -> list[str]:
    """One prompt a client, no two alike: no slot can answer from what another has read."""
    return [f"{round_name}, client {number}: tell me a long story about the sea." for number in range(n_clients)]


def report_of(measured: list[Row], command: EngineCommand, before: str, asked: argparse.Namespace) -> str:
    """The Markdown page."""
    rows = [
        (
            row.n_clients,
            median_range([p.qrun.tokens_per_s for p in row.pairs], 1),
            median_range([p.bare.tokens_per_s for p in row.pairs], 1),
            f"**{median_range([p.ratio for p in row.pairs])}**",
            median_range([1000 * median(p.qrun.ttft_s) for p in row.pairs], 1),
            median_range([1000 * median(p.bare.ttft_s) for p in row.pairs], 1),
            # In all, not by pair: the kernel counts in ticks of 10 ms, which is 78 us a token of one answer.
            f"{1e6 * sum(p.qrun_cpu_s for p in row.pairs) / sum(p.qrun.n_tokens for p in row.pairs):.0f}",
            row.disturbed,
        )
        for row in measured
    ]
    head = (
        "clients",
        "tokens/s through qrun",
        "tokens/s alone",
        "ratio",
        "TTFT qrun, ms",
        "TTFT alone, ms",
        "qrun's CPU, us/token",
        "disturbed",
    )
    intro = (
        f"{before}. {asked.model}, {asked.pairs} pairs a row, {asked.n_predict} tokens an answer, streamed, "
        f"temperature 0. Medians, with the least and the greatest; the ratio is of each pair. Aim: at least {AIM}. "
        f"`disturbed`: pairs measured again because other programs took over {MOST_FOR_OTHERS:.0%} of the machine."
    )
    engine = f"The engine, in both: `{command.shown()}`"
    made = "Made by `python scripts/bench/serve_overhead.py --models-dir DIR`."
    return "\n\n".join(["# What qrun costs while it serves", intro, table(head, rows), engine, made])


if __name__ == "__main__":
    sys.exit(main())
