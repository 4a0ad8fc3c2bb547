"""What a download is worth after its process was killed: by a real process, SIGKILL, and the Hub's own account."""

import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hub_emulator import HubEmulator, Seen
from qrun.store_download import UNSETTLED_BYTES

PULLER = Path(__file__).with_name("store_puller.py")
REPO = "org/model-GGUF"
LFS_SIZES = {"model-00001-of-00002.gguf": 70 * 2**20 + 4321, "model-00002-of-00002.gguf": 45 * 2**20 + 1}
SIZES = LFS_SIZES | {"config.json": 500}
TOTAL = sum(LFS_SIZES.values())
DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two shards of random bytes, over 100 MiB together, and a small file."""
    folder = tmp_path_factory.mktemp("hub-files")
    for number, (name, size) in enumerate(SIZES.items()):
        (folder / name).write_bytes(random.Random(number).randbytes(size))  # noqa: S311  # test data
    return {name: folder / name for name in SIZES}


@pytest.fixture
def stocked_hub(hub: HubEmulator, files: dict[str, Path]) -> HubEmulator:
    """A Hub that has them, at 25 MB a second and connection, so that a kill finds the download in its middle."""
    hub.add_repo(REPO, files)
    hub.fault("slow", path="^/cdn/", bytes_per_s=25e6)
    return hub


def start(hub: HubEmulator, cache: Path) -> "subprocess.Popen[bytes]":
    """A process that fetches the repo."""
    argv = [sys.executable, PULLER, hub.endpoint, cache, REPO]
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: "subprocess.Popen[bytes]") -> str:
    """Wait for a process that is to succeed; what it said on stderr."""
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, said.decode()
    return said.decode()


def sent_bytes(requests: Sequence[Seen]) -> int:
    """The bytes of LFS files that the Hub gave to its sockets."""
    return sum(seen.sent_bytes for seen in list(requests) if seen.host == "files")


def asked_bytes(requests: Sequence[Seen]) -> int:
    """The bytes of LFS files that were asked for: no less than what was sent, in whatever buffer it got lost."""
    total = 0
    for seen in list(requests):
        if seen.host == "files":
            first, last = re.fullmatch(r"bytes=(\d+)-(\d+)", seen.headers["range"]).groups()
            total += int(last) + 1 - int(first)
    return total


def kill_at(process: "subprocess.Popen[bytes]", hub: HubEmulator, n_bytes: int) -> None:
    """SIGKILL as soon as the Hub has sent so much."""
    ends = time.monotonic() + DEADLINE_S
    while sent_bytes(hub.requests) < n_bytes:
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < ends
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def assert_whole(cache: Path, files: dict[str, Path]) -> None:
    """Every file is there with its own bytes, and nothing else that huggingface_hub would find or complain of."""
    from huggingface_hub import scan_cache_dir, snapshot_download

    scanned = scan_cache_dir(cache)
    assert scanned.warnings == []
    assert scanned.incomplete_files == frozenset()
    folder = Path(snapshot_download(REPO, cache_dir=cache, local_files_only=True))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {n: p.read_bytes() for n, p in files.items()}


@pytest.mark.parametrize("seed", range(20))
def test_second_run_after_a_kill_fetches_at_most_16_mib_again(
    seed: int, stocked_hub: HubEmulator, files: dict[str, Path], tmp_path: Path
):
    """Killed at a random point of its progress: over both runs and all files and ranges, 16 MiB at most come twice."""
    cache = tmp_path / "hub"
    point = int(random.Random(seed).uniform(0.02, 0.9) * TOTAL)  # noqa: S311  # repeatable, not secret
    kill_at(start(stocked_hub, cache), stocked_hub, point)
    assert not list(cache.glob("*/refs/*"))
    first_asked = asked_bytes(stocked_hub.requests)
    finish(start(stocked_hub, cache))

    again = asked_bytes(stocked_hub.requests) - TOTAL
    assert first_asked >= point
    assert 0 <= again <= UNSETTLED_BYTES == 16 * 2**20
    assert sent_bytes(stocked_hub.requests) <= TOTAL + UNSETTLED_BYTES
    assert_whole(cache, files)


def test_download_that_is_killed_again_and_again_comes_to_its_end(
    stocked_hub: HubEmulator, files: dict[str, Path], tmp_path: Path
):
    """Each run adds to what those before left, so that even a short life each gets the whole."""
    cache = tmp_path / "hub"
    rng = random.Random(7)  # noqa: S311  # repeatable, not secret
    n_kills = 0
    while sent_bytes(stocked_hub.requests) < 0.7 * TOTAL:
        before = sent_bytes(stocked_hub.requests)
        kill_at(start(stocked_hub, cache), stocked_hub, before + rng.randrange(TOTAL // 8, TOTAL // 4))
        n_kills += 1
    finish(start(stocked_hub, cache))

    again = asked_bytes(stocked_hub.requests) - TOTAL
    assert n_kills >= 3
    assert 0 <= again <= n_kills * UNSETTLED_BYTES
    assert_whole(cache, files)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_download_ends_at_once_and_goes_on_later(
    number: signal.Signals, stocked_hub: HubEmulator, files: dict[str, Path], tmp_path: Path
):
    """Ctrl-C and SIGTERM end the process while the Hub is silent, and leave what came for the next run."""
    cache = tmp_path / "hub"
    process = start(stocked_hub, cache)
    ends = time.monotonic() + DEADLINE_S
    while sent_bytes(stocked_hub.requests) < TOTAL // 4:
        assert time.monotonic() < ends
        time.sleep(0.001)
    stocked_hub.clear_faults()
    stocked_hub.fault("hang", path="/cdn/")
    process.send_signal(number)
    process.communicate(timeout=8)  # a thread that hangs in the network gives up after 10 s
    stocked_hub.clear_faults()
    finish(start(stocked_hub, cache))

    again = asked_bytes(stocked_hub.requests) - TOTAL
    assert process.returncode != 0
    assert 0 <= again <= UNSETTLED_BYTES
    assert_whole(cache, files)


def test_download_killed_before_any_of_its_steps_is_mended_by_the_next(hub: HubEmulator, tmp_path: Path):
    """Between any two changes of the cache's folders: the next run completes it, and leaves nothing over."""
    files = {"a.gguf": random.Random(3).randbytes(5 * 2**20), "b/c.json": b"{}"}  # noqa: S311  # test data
    hub.add_repo(REPO, files)
    argv = [sys.executable, PULLER.with_name("store_crasher.py"), hub.endpoint, tmp_path, REPO]
    ended = subprocess.run(argv, check=False, capture_output=True, text=True)

    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 25
    for cache in tmp_path.glob("*/hub"):
        (commit,) = cache.glob("models--*/snapshots/*")
        assert {p.relative_to(commit).as_posix(): p.read_bytes() for p in commit.rglob("*") if p.is_file()} == files
