"""A disk that is too small, fills up in the middle, or may only be read: by a small one of its own (tmpfs)."""

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_emulator import HubEmulator
from qrun.errors import Failure
from qrun.hub_client import HubClient
from qrun.hub_errors import DiskFull
from qrun.source import Advance
from qrun.store import Store, Wanted
from qrun.store_download import UNSETTLED_BYTES
from qrun.store_layout import RepoLayout
from store_puller import settings_of, wanted_of

REPO = "org/model-GGUF"
SIZE = 24 * 2**20
DISK = 48 * 2**20
WEIGHTS = random.Random(2).randbytes(SIZE)  # noqa: S311  # test data


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 48 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder]
    try:
        mounted = subprocess.run(argv, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command: a small disk cannot be made")
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def client(hub: HubEmulator, disk: Path) -> Iterator[HubClient]:
    """A client of a Hub with a model of half that size; what it keeps of answers lies elsewhere."""
    hub.add_repo(REPO, {"model.gguf": WEIGHTS})
    client = HubClient(settings_of(hub.endpoint, disk.parent / "answers" / "hub", retry_s=1.0))
    yield client
    client.close()


@pytest.fixture
def wanted(client: HubClient) -> Wanted:
    """The model."""
    return wanted_of(client, REPO)


@pytest.fixture
def store(hub: HubEmulator, disk: Path, client: HubClient) -> Store:
    """A store on the small disk."""
    return Store(settings_of(hub.endpoint, disk / "hub"), client)


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    path = folder / "ballast"
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(65536)):
                pass
        except OSError:
            return path


def sent_of(hub: HubEmulator) -> int:
    """The bytes of LFS files that the Hub sent."""
    return sum(seen.sent_bytes for seen in hub.requests if seen.host == "files" and seen.status in (200, 206))


def test_disk_without_room_is_refused_before_anything_is_fetched(
    store: Store, wanted: Wanted, disk: Path, hub: HubEmulator
):
    """Exit 9 with what is needed and what is free; no byte is asked for and nothing is made."""
    (disk / "others").write_bytes(bytes(DISK - SIZE - 2**20))
    with pytest.raises(DiskFull, match="free and needs") as refused:
        store.fetch(wanted)

    assert refused.value.exit_code == 9
    assert refused.value.needed_bytes >= SIZE
    assert sent_of(hub) == 0
    assert [path.name for path in disk.iterdir()] == ["others"]


def test_room_is_needed_for_what_is_missing_alone(store: Store, wanted: Wanted, disk: Path, hub: HubEmulator):
    """What an earlier run left counts: a disk with room for the rest is enough."""
    hub.fault("cut", path="^/cdn/", after_bytes=3 * 2**20, times=4)
    hub.fault("delay", path="^/cdn/", times=4)
    hub.fault("status", path="^/cdn/", status=404)
    with pytest.raises(Exception, match="404"):
        store.fetch(wanted)
    hub.clear_faults()
    (disk / "others").write_bytes(bytes(4 * 2**20))  # not enough for the whole with its allowance

    assert store.fetch(wanted).read_bytes() == WEIGHTS


def test_disk_that_fills_up_in_the_middle_keeps_what_came(store: Store, wanted: Wanted, disk: Path, hub: HubEmulator):
    """Exit 9, no blob, no link, no ref; with room again the next run goes on from there."""
    layout = RepoLayout(disk / "hub", REPO)
    ballast: list[Path] = []

    def fill_in_the_middle(advance: Advance) -> None:
        if advance.done_bytes > SIZE // 3 and not ballast:
            ballast.append(fill(disk))

    hub.fault("slow", path="^/cdn/", bytes_per_s=8e6)
    with pytest.raises(DiskFull) as refused:
        store.fetch(wanted, fill_in_the_middle)
    assert refused.value.exit_code == 9
    assert list(layout.snapshot(wanted.commit).iterdir()) == []
    assert not layout.refs.exists()
    assert {path.suffix for path in layout.blobs.iterdir()} == {".incomplete"}
    ballast[0].unlink()
    path = store.fetch(wanted)

    assert path.read_bytes() == WEIGHTS
    assert sent_of(hub) <= SIZE + UNSETTLED_BYTES
    assert [path.name for path in layout.blobs.iterdir()] == [wanted.files[0].sha256]


def test_cache_that_may_only_be_read_serves_and_says_so_where_it_cannot(
    store: Store, wanted: Wanted, disk: Path, client: HubClient, hub: HubEmulator
):
    """A shared cache on a read-only disk: what is there is used, what is not is one line."""
    path = store.fetch(wanted)
    RepoLayout(disk / "hub", REPO).ref("main").unlink()
    hub.add_repo("org/other", {"other.gguf": b"x"})
    other = wanted_of(client, "org/other")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)

    assert store.fetch(wanted) == path
    with pytest.raises(Failure, match=r"Read-only file system.*HF_HUB_CACHE"):
        store.fetch(other)
