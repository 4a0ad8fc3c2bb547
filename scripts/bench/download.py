"""How fast a model comes down: qrun's store against `hf download`, from one emulated Hub on this machine, in turns.

    python scripts/bench/download.py [--pairs 10] [--out docs/measurements/download.md]

Both are whole processes, from their start to their end, into an empty cache; both take the plain route (no Xet). The
Hub is tests/hub_emulator.py, without limit, and limited for each connection as a distant one is. qrun also verifies the
checksum and brings every byte to the disk before it says that it is done, `hf download` does neither. Needs psutil and
an interpreter that has qrun installed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from quiet import Others
from report import machine_line, median_range, table

TESTS = Path(__file__).resolve().parents[2] / "tests"
sys.path.insert(0, str(TESTS))
from hub_emulator import HubEmulator  # noqa: E402  # lies beside the tests

REPO = "bench/model-GGUF"
MIB = 2**20
MOST_OTHERS = 0.05  # a pair is taken again where other programs took more of the processors
MOST_TRIES = 3


@dataclass(frozen=True)
class Case:
    """One kind of download. `bytes_per_s`: of each connection; None is as fast as it goes."""

    name: str
    n_files: int
    file_mib: int
    bytes_per_s: float | None = None

    @property
    def mib(self) -> int:
        """All of it."""
        return self.n_files * self.file_mib


@dataclass(frozen=True)
class Pair:
    """Wall seconds of both, one after the other, and the share of the processors that others took meanwhile."""

    qrun_s: float
    hf_s: float
    others: float


CASES = (
    Case("one file of 1 GiB", 1, 1024),
    Case("4 files of 256 MiB", 4, 256),
    Case("one file of 256 MiB, 20 MB/s a connection", 1, 256, 20e6),
)


def main() -> int:
    """The command line: 0 where the store is at least as fast in every case, 3 where it is not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="where files and caches are made; default: the temporary folder")
    parser.add_argument("--out", type=Path, help="a Markdown file to write the results to")
    asked = parser.parse_args()
    before = machine_line()
    measured = {}
    for case in CASES:
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            measured[case] = pairs_of(case, asked.pairs, Path(folder))
    report = report_of(before, measured)
    print(report)
    if asked.out:
        asked.out.write_text(report + "\n")
    return 0 if all(median_ratio(pairs) >= 1 for pairs in measured.values()) else 3


def pairs_of(case: Case, n_pairs: int, folder: Path) -> list[Pair]:
    """The pairs of one case; the first, which fills the page cache, is dropped."""
    with HubEmulator() as hub:
        hub.add_folder(made_files(case, folder / "files"))
        if case.bytes_per_s:
            hub.fault("slow", path="^/cdn/", bytes_per_s=case.bytes_per_s)
        pairs = [quiet_pair(case, hub.endpoint, folder, number) for number in range(n_pairs + 1)]
    return pairs[1:]


def made_files(case: Case, root: Path) -> Path:
    """A repo of random bytes."""
    folder = root / REPO
    folder.mkdir(parents=True)
    for number in range(case.n_files):
        with (folder / f"model-{number}.gguf").open("wb") as file:
            for _ in range(case.file_mib):
                file.write(os.urandom(MIB))
    return root


def quiet_pair(case: Case, endpoint: str, folder: Path, number: int) -> Pair:
    """A pair that others left alone, or the quietest of a few."""
    tried: list[Pair] = []
    while not tried or (tried[-1].others > MOST_OTHERS and len(tried) < MOST_TRIES):
        tried.append(pair(endpoint, folder, qrun_first=number % 2 == 0))
        last = tried[-1]
        ratio = last.hf_s / last.qrun_s
        said = (
            f"{case.name}: qrun {last.qrun_s:.2f} s, hf {last.hf_s:.2f} s, ratio {ratio:.3f}, others {last.others:.0%}"
        )
        print(said, file=sys.stderr, flush=True)
    return min(tried, key=lambda one: one.others)


def pair(endpoint: str, folder: Path, *, qrun_first: bool) -> Pair:
    """Both, in the order that is their turn."""
    others, started, ours_before_s = Others([psutil.Process()]), time.perf_counter(), ended_children_s()
    sides = {"qrun": qrun_argv(endpoint, folder / "qrun" / "hub"), "hf": hf_argv(folder / "hf")}
    took_s = {}
    for side in ("qrun", "hf") if qrun_first else ("hf", "qrun"):
        took_s[side] = wall_s(sides[side], endpoint, folder)
        shutil.rmtree(folder / side)
        os.sync()  # what this one left to write is not the next one's burden
    share, took = others.share(), time.perf_counter() - started
    ours = (ended_children_s() - ours_before_s) / (took * (os.cpu_count() or 1))  # Others counts the living alone
    return Pair(took_s["qrun"], took_s["hf"], max(0.0, share - ours))


def ended_children_s() -> float:
    """The processor time of the processes that this one started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def qrun_argv(endpoint: str, cache: Path) -> list[str]:
    """The store alone, as `qrun pull` uses it."""
    return [sys.executable, str(TESTS / "store_puller.py"), endpoint, str(cache), REPO]


def hf_argv(cache: Path) -> list[str]:
    """huggingface_hub's own command."""
    return [str(Path(sys.executable).with_name("hf")), "download", REPO, "--cache-dir", str(cache)]


def wall_s(argv: list[str], endpoint: str, home: Path) -> float:
    """Wall seconds of one command, which has to succeed."""
    more = {
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HOME": str(home / "hf-home"),
    }
    started = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | more)
    return time.perf_counter() - started


def median_ratio(pairs: list[Pair]) -> float:
    """The time of `hf` by qrun's: above 1, qrun is faster."""
    ratios = sorted(one.hf_s / one.qrun_s for one in pairs)
    middle = len(ratios) // 2
    return ratios[middle] if len(ratios) % 2 else (ratios[middle - 1] + ratios[middle]) / 2


def report_of(before: str, measured: dict[Case, list[Pair]]) -> str:
    """The Markdown page."""
    rows = [
        (
            case.name,
            median_range([case.mib / one.qrun_s for one in pairs], 0),
            median_range([case.mib / one.hf_s for one in pairs], 0),
            f"**{median_range([one.hf_s / one.qrun_s for one in pairs])}**",
            f"{max(one.others for one in pairs):.0%}",
            len(pairs),
        )
        for case, pairs in measured.items()
    ]
    intro = (
        f"{before}. MiB a second of whole processes, start-up included: medians, with the least and the greatest; the "
        "sides alternate. A ratio above 1: qrun is faster. `others`: the most that other programs took of the "
        "processors beside a pair."
    )
    head = ("download", "qrun, MiB/s", "`hf download`, MiB/s", "ratio", "others", "pairs")
    made = "Made by `python scripts/bench/download.py`."
    return "\n\n".join(["# How fast a model comes down", intro, table(head, rows), made])


if __name__ == "__main__":
    sys.exit(main())
