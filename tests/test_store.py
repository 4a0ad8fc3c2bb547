import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from hub_emulator import HubEmulator
from qrun.errors import Failure, FileDamaged, UnsafeFile
from qrun.hub_client import HubClient
from qrun.hub_errors import ChecksumWrong, HubUnreachable
from qrun.hub_info import HubFile
from qrun.hub_settings import HubSettings
from qrun.model import ModelFile
from qrun.source import Advance
from qrun.store import Store, Wanted
from qrun.store_layout import RepoLayout
from store_puller import settings_of, wanted_of

REPO = "org/model-GGUF"
WEIGHTS = random.Random(1).randbytes(9 * 2**20 + 77)  # noqa: S311  # test data: three slices
FILES = {"model-Q4_K_M.gguf": WEIGHTS, "config.json": b'{"a": 1}', "deep/er/tokenizer.json": b"{}" * 999}
PULLER = Path(__file__).with_name("store_puller.py")


@pytest.fixture
def settings(hub: HubEmulator, tmp_path: Path) -> HubSettings:
    """A Hub with one repo, and an empty cache; what fails is given up soon."""
    hub.add_repo(REPO, FILES)
    return settings_of(hub.endpoint, tmp_path / "hub", retry_s=1.0)


@pytest.fixture
def client(settings: HubSettings) -> Iterator[HubClient]:
    """A client of it."""
    client = HubClient(settings)
    yield client
    client.close()


@pytest.fixture
def store(settings: HubSettings, client: HubClient) -> Store:
    """The store."""
    return Store(settings, client)


@pytest.fixture
def wanted(client: HubClient) -> Wanted:
    """All files of the repo's main."""
    return wanted_of(client, REPO)


@pytest.fixture
def layout(settings: HubSettings) -> RepoLayout:
    """Where they are to lie."""
    return RepoLayout(settings.cache_dir, REPO)


def files_in(folder: Path) -> dict[str, bytes]:
    """What a folder holds, by path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def sent_of(hub: HubEmulator) -> int:
    """The bytes of LFS files that the Hub sent."""
    return sum(seen.sent_bytes for seen in hub.requests if seen.host == "files" and seen.status in (200, 206))


def file_of(wanted: Wanted, path: str) -> HubFile | ModelFile:
    """One of the wanted files."""
    return next(file for file in wanted.files if file.path == path)


def test_fetched_repo_lies_in_the_hubs_layout(store: Store, wanted: Wanted, layout: RepoLayout):
    """Blobs by checksum, relative links from the commit's folder, and the ref with the commit."""
    path = store.fetch(wanted)

    assert path == layout.file(wanted.commit, wanted.files[0].path)
    assert files_in(layout.snapshot(wanted.commit)) == FILES
    for file in wanted.files:
        link = layout.file(wanted.commit, file.path)
        assert link.readlink() == Path(os.path.relpath(layout.blob(file.sha256 or file.blob_id), link.parent))
    assert layout.ref("main").read_text() == wanted.commit
    assert sorted(p.name for p in layout.blobs.iterdir()) == sorted(f.sha256 or f.blob_id for f in wanted.files)


def test_what_is_stored_needs_no_hub(store: Store, wanted: Wanted, settings: HubSettings, hub: HubEmulator):
    """A whole repo is found by its links and sizes; nothing is asked, and no client is needed."""
    path = store.fetch(wanted)
    hub.requests.clear()

    assert store.fetch(wanted) == path
    assert Store(settings, None).path_of(wanted) == path
    assert Store(settings, None).fetch(wanted) == path
    assert hub.requests == []


def test_finding_what_is_stored_imports_no_library():
    """A stored decision starts without huggingface_hub, httpx and filelock."""
    code = "import sys, qrun.store; print(*(m for m in ('huggingface_hub', 'httpx2', 'filelock') if m in sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert said.stdout.split() == []


def test_what_is_not_stored_cannot_be_had_without_a_hub(settings: HubSettings, wanted: Wanted):
    """Exit 5 with the remedy, and nothing is made on the disk."""
    store = Store(settings, None)

    assert store.path_of(wanted) is None
    with pytest.raises(HubUnreachable, match=r"not stored whole.*without --offline"):
        store.fetch(wanted)
    assert not settings.cache_dir.exists()


def test_library_reads_what_we_stored(store: Store, wanted: Wanted, settings: HubSettings):
    """hf_hub_download and snapshot_download find it without the network, and scan_cache_dir has nothing to say."""
    from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download

    path = store.fetch(wanted)
    for revision in ("main", wanted.commit):
        found = hf_hub_download(
            REPO, wanted.files[0].path, revision=revision, cache_dir=settings.cache_dir, local_files_only=True
        )
        assert Path(found) == path
    snapshot = snapshot_download(REPO, cache_dir=settings.cache_dir, local_files_only=True)
    scanned = scan_cache_dir(settings.cache_dir)
    (repo,) = scanned.repos
    (revision,) = repo.revisions

    assert files_in(Path(snapshot)) == FILES
    assert scanned.warnings == []
    assert scanned.incomplete_files == frozenset()
    assert (repo.repo_id, repo.nb_files, revision.refs) == (REPO, len(FILES), {"main"})
    assert repo.size_on_disk == sum(map(len, FILES.values()))


def test_we_read_what_the_library_stored(store: Store, wanted: Wanted, settings: HubSettings, hub: HubEmulator):
    """What snapshot_download put there is whole, and is not fetched again."""
    from huggingface_hub import snapshot_download

    snapshot_download(REPO, cache_dir=settings.cache_dir, endpoint=hub.endpoint)
    hub.requests.clear()

    assert store.path_of(wanted) is not None
    store.fetch(wanted)
    assert hub.requests == []


def test_only_what_the_library_did_not_store_is_fetched(
    store: Store, wanted: Wanted, settings: HubSettings, hub: HubEmulator
):
    """A repo that huggingface_hub holds in part is completed."""
    from huggingface_hub import hf_hub_download

    hf_hub_download(REPO, "model-Q4_K_M.gguf", cache_dir=settings.cache_dir, endpoint=hub.endpoint)
    hub.requests.clear()
    assert store.path_of(wanted) is None
    store.fetch(wanted)

    assert {seen.path.rpartition("/")[2] for seen in hub.requests} == {"config.json", "tokenizer.json"}


def test_copies_in_place_of_links_are_taken_by_their_size(
    store: Store, wanted: Wanted, settings: HubSettings, hub: HubEmulator, tmp_path: Path
):
    """Windows without its developer mode, and HF_HUB_DISABLE_SYMLINKS: the files stand in the commit's folder."""
    code = (
        "from huggingface_hub import snapshot_download\n"
        f"snapshot_download({REPO!r}, cache_dir={str(settings.cache_dir)!r}, endpoint={hub.endpoint!r})"
    )
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_HUB_DISABLE_SYMLINKS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environ, capture_output=True)
    path = store.path_of(wanted)
    assert path is not None
    assert not path.is_symlink()
    with path.open("ab") as file:
        file.write(b"longer")

    assert store.path_of(wanted) is None
    store.fetch(wanted)
    assert files_in(RepoLayout(settings.cache_dir, REPO).snapshot(wanted.commit)) == FILES


def test_blob_that_has_no_link_yet_is_linked_and_not_fetched(
    store: Store, wanted: Wanted, layout: RepoLayout, hub: HubEmulator
):
    """A new commit with the same weights costs no bytes of them."""
    store.fetch(wanted)
    commit = hub.replace_files(REPO, FILES | {"README.md": b"new"})
    again = Wanted(REPO, commit, "main", (file_of(wanted, "model-Q4_K_M.gguf"),))
    sent = sent_of(hub)
    store.fetch(again)

    assert sent_of(hub) == sent
    assert layout.file(commit, "model-Q4_K_M.gguf").read_bytes() == WEIGHTS
    assert layout.ref("main").read_text() == commit
    assert files_in(layout.snapshot(wanted.commit)) == FILES


@pytest.mark.parametrize("damage", ["shorter", "gone", "elsewhere", "folder"])
def test_file_that_is_not_whole_is_fetched_again(store: Store, wanted: Wanted, layout: RepoLayout, damage: str):
    """A blob of another size, a link that leads nowhere or to other bytes: none of them is served."""
    path = store.fetch(wanted)
    link = layout.file(wanted.commit, "model-Q4_K_M.gguf")
    blob = link.resolve()
    if damage == "shorter":
        os.truncate(blob, 1000)
    elif damage == "gone":
        blob.unlink()
    else:
        link.unlink()
        link.symlink_to(
            path.parent / "other" if damage == "folder" else os.path.relpath(blob.parent / ("0" * 64), link.parent)
        )
    assert store.path_of(wanted) is None
    store.fetch(wanted)

    assert files_in(layout.snapshot(wanted.commit)) == FILES


def test_wrong_bytes_are_set_aside_and_never_served(store: Store, wanted: Wanted, layout: RepoLayout, hub: HubEmulator):
    """Exit 8 with both sums, no blob, no link, no ref; the next try begins anew and clears up."""
    file = file_of(wanted, "model-Q4_K_M.gguf")
    hub.fault("corrupt", path="^/cdn/", after_bytes=3, times=1)
    with pytest.raises(ChecksumWrong) as refused:
        store.fetch(wanted)
    told = str(refused.value)

    assert refused.value.exit_code == 8
    assert file.sha256 in told
    assert refused.value.found in told != file.sha256
    assert not layout.blob(file.sha256).exists()
    assert not os.path.lexists(layout.file(wanted.commit, file.path))
    assert not layout.ref("main").exists()
    assert layout.set_aside(file.sha256).stat().st_size == len(WEIGHTS)
    assert store.path_of(wanted) is None
    sent = sent_of(hub)
    store.fetch(wanted)
    assert sent_of(hub) - sent == len(WEIGHTS)
    assert files_in(layout.snapshot(wanted.commit)) == FILES
    assert not list(layout.blobs.glob("*.incomplete"))


def test_wrong_bytes_of_a_small_file_are_told_by_its_git_id(store: Store, wanted: Wanted, hub: HubEmulator):
    """A file that is not in LFS has no sha256; git's id tells."""
    hub.fault("corrupt", path="/resolve/.*/config.json", after_bytes=0)

    with pytest.raises(ChecksumWrong, match="its git id is"):
        store.fetch(wanted)


def test_file_shorter_than_the_hub_says_is_refused(store: Store, wanted: Wanted, layout: RepoLayout):
    """The listing's size is part of what is verified: exit 8, and nothing is left to go on from."""
    file = file_of(wanted, "model-Q4_K_M.gguf")
    longer = Wanted(REPO, wanted.commit, "main", (HubFile(file.path, file.size_bytes + 5 * 2**20, file.sha256),))
    with pytest.raises(
        FileDamaged, match=rf"ends by byte \d+, and the Hub's listing says {longer.files[0].size_bytes}"
    ) as refused:
        store.fetch(longer)

    assert refused.value.exit_code == 8
    assert not layout.blob(file.sha256).exists()
    assert not layout.partial(file.sha256).exists()
    assert not layout.journal(file.sha256).exists()


def test_file_longer_than_the_hub_says_is_refused(store: Store, wanted: Wanted, layout: RepoLayout):
    """Its first bytes alone have another checksum."""
    file = file_of(wanted, "model-Q4_K_M.gguf")
    shorter = Wanted(REPO, wanted.commit, "main", (HubFile(file.path, file.size_bytes - 1, file.sha256),))
    with pytest.raises(ChecksumWrong):
        store.fetch(shorter)

    assert not layout.blob(file.sha256).exists()


def test_connection_that_breaks_goes_on_at_the_byte(store: Store, wanted: Wanted, layout: RepoLayout, hub: HubEmulator):
    """Cut off in every slice, again and again: no byte that came is asked for twice."""
    hub.fault("cut", path="^/cdn/", after_bytes=700_000, times=12)
    store.fetch(wanted)

    assert files_in(layout.snapshot(wanted.commit)) == FILES
    assert sent_of(hub) <= len(WEIGHTS) + 12


def test_hub_that_stays_away_is_exit_5_and_what_came_is_kept(
    store: Store, wanted: Wanted, layout: RepoLayout, hub: HubEmulator
):
    """After the time for retries the command ends; the next one fetches the rest alone."""
    hub.fault("cut", path="^/cdn/", after_bytes=1_000_000, times=3)
    hub.fault("delay", path="^/cdn/", times=3)  # the three that bring something, then none
    hub.fault("status", path="^/cdn/", status=503)
    with pytest.raises(HubUnreachable) as refused:
        store.fetch(wanted)
    assert refused.value.exit_code == 5
    assert not layout.ref("main").exists()
    assert sent_of(hub) >= 2_000_000
    hub.clear_faults()
    store.fetch(wanted)

    # what was on its way when another range gave up may come twice: that of the last, short slice
    assert len(WEIGHTS) <= sent_of(hub) < len(WEIGHTS) + 1_100_000
    assert files_in(layout.snapshot(wanted.commit)) == FILES


def test_signed_links_that_ran_out_are_asked_for_anew(
    store: Store, wanted: Wanted, layout: RepoLayout, hub: HubEmulator
):
    """A link that is good for a moment only does no harm: each range asks for its own."""
    hub.link_lifetime_s = 0.2
    hub.fault("slow", path="^/cdn/", bytes_per_s=4e6)
    store.fetch(wanted)

    assert files_in(layout.snapshot(wanted.commit)) == FILES


def test_server_that_knows_no_ranges_is_read_from_its_start(
    store: Store, wanted: Wanted, layout: RepoLayout, hub: HubEmulator
):
    """Some mirrors send the whole file whatever is asked: then it is read once, in one go."""
    hub.fault("no_range", path="^/cdn/")
    store.fetch(wanted)

    assert files_in(layout.snapshot(wanted.commit)) == FILES


def test_hub_that_moves_meanwhile_mixes_nothing(store: Store, wanted: Wanted, layout: RepoLayout, hub: HubEmulator):
    """The commit that was decided on is the one that is fetched, whatever main is by then."""
    other = {name: content[::-1] for name, content in FILES.items()}
    hub.fault("move", path="/resolve/", times=1, files=other)
    store.fetch(wanted)

    assert files_in(layout.snapshot(wanted.commit)) == FILES
    assert layout.ref("main").read_text() == wanted.commit
    assert [path.name for path in layout.snapshots.iterdir()] == [wanted.commit]


def test_files_without_a_checksum_are_looked_up_at_their_commit(store: Store, wanted: Wanted, layout: RepoLayout):
    """A decision may know names and sizes alone; the Hub's listing of that commit says the rest."""
    bare = Wanted(REPO, wanted.commit, "main", tuple(ModelFile(f.path, f.size_bytes) for f in wanted.files))
    store.fetch(bare)

    assert files_in(layout.snapshot(wanted.commit)) == FILES
    assert store.path_of(bare) is not None


def test_file_that_the_commit_does_not_have_is_refused(store: Store, wanted: Wanted):
    """Then the decision is no longer true: it says how to decide anew."""
    with pytest.raises(FileDamaged, match=r"no such file.*--refresh"):
        store.fetch(Wanted(REPO, wanted.commit, "main", (ModelFile("other.gguf", 5),)))


def test_files_of_the_same_bytes_are_one_blob_fetched_once(hub: HubEmulator, store: Store, client: HubClient):
    """Two names, one checksum; and a file without bytes is a file."""
    hub.add_repo("org/twins", {"a.gguf": WEIGHTS, "b/c.gguf": WEIGHTS, "empty.txt": b""})
    seen: list[Advance] = []
    path = store.fetch(wanted_of(client, "org/twins"), seen.append)

    assert files_in(path.parent) == {"a.gguf": WEIGHTS, "b/c.gguf": WEIGHTS, "empty.txt": b""}
    assert sent_of(hub) == len(WEIGHTS)
    assert {a.path for a in seen if a.done_bytes == a.total_bytes} == {"a.gguf", "b/c.gguf", "empty.txt"}


def test_progress_grows_ends_whole_and_is_not_told_too_often(store: Store, wanted: Wanted, hub: HubEmulator):
    """About ten times a second and file, never backwards, and at last all of it."""
    hub.fault("slow", path="^/cdn/", bytes_per_s=3e6)
    seen: list[Advance] = []
    began = time.monotonic()
    store.fetch(wanted, seen.append)
    took_s = time.monotonic() - began
    of_weights = [a.done_bytes for a in seen if a.path == "model-Q4_K_M.gguf"]

    assert of_weights == sorted(of_weights)
    assert of_weights[-1] == len(WEIGHTS)
    assert 3 <= len(of_weights) <= 10 * took_s + 3
    assert {(a.path, a.total_bytes) for a in seen} == {(name, len(content)) for name, content in FILES.items()}


def test_branch_that_was_seen_later_is_not_turned_back(store: Store, wanted: Wanted, layout: RepoLayout):
    """A pinned decision of an older commit, all there: where main points by now is left alone."""
    store.fetch(wanted)
    layout.ref("main").write_text("f" * 40)
    store.fetch(wanted)

    assert layout.ref("main").read_text() == "f" * 40


def test_branch_whose_ref_is_empty_is_noted_again(store: Store, wanted: Wanted, layout: RepoLayout):
    """What a tool left that was killed while it wrote."""
    store.fetch(wanted)
    layout.ref("main").write_text("")
    store.fetch(wanted)

    assert layout.ref("main").read_text() == wanted.commit


def test_branch_of_another_name_has_its_ref(store: Store, client: HubClient, hub: HubEmulator, settings: HubSettings):
    """EXL2 repos keep each size on a branch of its own, and a name may have a slash."""
    hub.add_repo("org/exl2", {"README.md": b"x"}, branches={"size/4.0bpw": {"model.safetensors": WEIGHTS}})
    info = client.repo("org/exl2", "size/4.0bpw")
    path = store.fetch(Wanted("org/exl2", info.commit, "size/4.0bpw", info.files))

    assert path.read_bytes() == WEIGHTS
    assert RepoLayout(settings.cache_dir, "org/exl2").ref("size/4.0bpw").read_text() == info.commit


@pytest.mark.parametrize("path", ["../x.gguf", "/x.gguf", "a\\..\\x.gguf", "C:x.gguf", "nul", "x\0.gguf"])
def test_name_that_could_leave_the_store_is_refused_before_anything_is_made(
    path: str, store: Store, wanted: Wanted, settings: HubSettings, hub: HubEmulator
):
    """Exit 8, no request, no folder."""
    hub.requests.clear()
    bad = Wanted(REPO, wanted.commit, "main", (HubFile(path, 5, "0" * 64),))
    with pytest.raises(UnsafeFile):
        store.fetch(bad)
    with pytest.raises(UnsafeFile):
        store.path_of(bad)

    assert hub.requests == []
    assert not settings.cache_dir.exists()


@pytest.mark.parametrize("planted", ["snapshots/COMMIT", "snapshots/COMMIT/deep", "refs/a"])
def test_link_that_somebody_planted_is_not_followed(
    planted: str, store: Store, wanted: Wanted, layout: RepoLayout, tmp_path: Path
):
    """A folder of the snapshot that is a link leads what the Hub names out of the store: refused, nothing written."""
    outside = tmp_path / "outside"
    outside.mkdir()
    link = layout.folder / planted.replace("COMMIT", wanted.commit)
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    with pytest.raises(UnsafeFile, match="it is a link"):
        store.fetch(Wanted(REPO, wanted.commit, "a/b", wanted.files))

    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("planted", ["snapshots/COMMIT", "snapshots/COMMIT/deep"])
def test_files_behind_a_planted_link_are_not_stored(planted: str, store: Store, wanted: Wanted, layout: RepoLayout):
    """However whole they are: who planted the link may change what is behind it."""
    store.fetch(wanted)
    folder = layout.folder / planted.replace("COMMIT", wanted.commit)
    folder.symlink_to(folder.rename(folder.with_name("moved")))

    assert store.path_of(wanted) is None


def test_link_planted_in_a_files_place_is_replaced(store: Store, wanted: Wanted, layout: RepoLayout, tmp_path: Path):
    """It does not count as the file, and what it leads to is not written to."""
    outside = tmp_path / "outside"
    outside.write_bytes(bytes(len(FILES["config.json"])))
    link = layout.file(wanted.commit, "config.json")
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    store.fetch(wanted)

    assert outside.read_bytes() == bytes(len(FILES["config.json"]))
    assert files_in(layout.snapshot(wanted.commit)) == FILES


@pytest.mark.parametrize("damage", ["damaged", "foreign", "short"])
def test_unfinished_file_that_cannot_be_trusted_is_begun_anew(
    damage: str, store: Store, wanted: Wanted, layout: RepoLayout
):
    """A journal of other bytes, or a partial file of another size: no failure, and no wrong file."""
    key = file_of(wanted, "model-Q4_K_M.gguf").sha256
    layout.blobs.mkdir(parents=True)
    layout.partial(key).write_bytes(bytes(len(WEIGHTS) if damage != "short" else 10))
    line = f"qrun-journal 1 {key} {len(WEIGHTS)}\n".encode()
    layout.journal(key).write_bytes({"damaged": line + b"x" * 60, "foreign": b"something", "short": line}[damage])
    store.fetch(wanted)

    assert files_in(layout.snapshot(wanted.commit)) == FILES


def test_second_process_waits_and_fetches_nothing(hub: HubEmulator, settings: HubSettings, wanted: Wanted):
    """Two that pull the same model at once do the work once, and both end well."""
    hub.fault("slow", path="^/cdn/", bytes_per_s=2e6)
    argv = [sys.executable, PULLER, hub.endpoint, settings.cache_dir, REPO]
    pulls = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [pull.communicate(timeout=60)[0] for pull in pulls]

    assert [pull.returncode for pull in pulls] == [0, 0]
    assert sent_of(hub) == len(WEIGHTS)
    assert all(f'["model-Q4_K_M.gguf", {len(WEIGHTS)}, {len(WEIGHTS)}]' in text for text in said)


def test_two_that_put_the_same_file_in_place_at_once_lose_no_bytes(
    settings: HubSettings, wanted: Wanted, store: Store, layout: RepoLayout, monkeypatch: pytest.MonkeyPatch
):
    """One at a time: neither takes the other's half-made link for a disk without links, and moves the blob away."""
    link = store.fetch(wanted)
    content = link.read_bytes()
    make_link, failures = Path.symlink_to, []

    def make_slowly(self: Path, target: Path) -> None:
        time.sleep(0.002)  # the other one's turn
        make_link(self, target)

    def put_again_and_again() -> None:
        with closing(HubClient(settings)) as client:
            for _ in range(10):
                link.unlink(missing_ok=True)
                (layout.refs / "main").unlink(missing_ok=True)
                try:
                    Store(settings, client).fetch(wanted)
                except Failure as failure:
                    failures.append(failure)

    monkeypatch.setattr(Path, "symlink_to", make_slowly)
    threads = [threading.Thread(target=put_again_and_again) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert link.read_bytes() == content
    assert layout.blob(link.readlink().name).is_file()


@pytest.mark.parametrize("ours_first", [True, False])
def test_we_and_the_library_wait_for_each_other(
    ours_first: bool, hub: HubEmulator, settings: HubSettings, wanted: Wanted, store: Store
):
    """`hf download` and qrun hold the same lock: whoever comes second finds the file whole."""
    from huggingface_hub import hf_hub_download

    hub.fault("slow", path="^/cdn/", bytes_per_s=4e6)
    only = Wanted(REPO, wanted.commit, "main", (file_of(wanted, "model-Q4_K_M.gguf"),))

    def theirs() -> None:
        hf_hub_download(REPO, "model-Q4_K_M.gguf", cache_dir=settings.cache_dir, endpoint=hub.endpoint)

    first, second = (lambda: store.fetch(only), theirs)[:: 1 if ours_first else -1]
    thread = threading.Thread(target=first)
    thread.start()
    ends = time.monotonic() + 30
    while not sent_of(hub):
        assert time.monotonic() < ends
        time.sleep(0.01)
    second()
    thread.join()

    assert sent_of(hub) == len(WEIGHTS)
    assert store.path_of(only).read_bytes() == WEIGHTS


def test_partial_file_that_somebody_prunes_meanwhile_is_one_line_and_mended(
    store: Store, wanted: Wanted, layout: RepoLayout, hub: HubEmulator
):
    """`hf cache prune` removes what is unfinished, also while we write to it: nothing wrong comes of that."""
    hub.fault("slow", path="^/cdn/", bytes_per_s=8e6)

    def prune(advance: Advance) -> None:
        if advance.done_bytes > len(WEIGHTS) // 3:
            for path in layout.blobs.glob("*.incomplete"):
                path.unlink()

    with pytest.raises(Failure, match=r"the store cannot use .*No such file"):
        store.fetch(wanted, prune)
    store.fetch(wanted)

    assert files_in(layout.snapshot(wanted.commit)) == FILES


def test_disk_without_links_gets_the_files_themselves(
    store: Store, wanted: Wanted, layout: RepoLayout, settings: HubSettings, monkeypatch: pytest.MonkeyPatch
):
    """Windows without its developer mode, or FAT: each file stands in the commit's folder, and only there."""
    from huggingface_hub import scan_cache_dir

    def refuse(self: Path, target: Path) -> None:
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    path = store.fetch(wanted)

    assert not path.is_symlink()
    assert store.path_of(wanted) == path
    assert files_in(layout.snapshot(wanted.commit)) == FILES
    assert list(layout.blobs.iterdir()) == []
    assert scan_cache_dir(settings.cache_dir).warnings == []


def test_no_thread_outlives_a_fetch(store: Store, wanted: Wanted):
    """Neither readers nor those that settle and verify."""
    store.fetch(wanted)
    ends = time.monotonic() + 10
    while left := [thread for thread in threading.enumerate() if thread.name.startswith("store")]:
        assert time.monotonic() < ends, left
        time.sleep(0.01)

    assert left == []


def test_library_fetches_where_xet_is_asked_for_and_we_verify(
    settings: HubSettings, client: HubClient, wanted: Wanted, layout: RepoLayout, hub: HubEmulator
):
    """QRUN_XET=1: by hf_hub_download, here by its plain route; its bytes are hashed once more."""
    from huggingface_hub import scan_cache_dir

    by_library = Store(replace(settings, xet=True), client)
    hub.fault("corrupt", path="^/cdn/", after_bytes=5, times=1)
    with pytest.raises(ChecksumWrong):
        by_library.fetch(wanted)
    assert by_library.path_of(wanted) is None
    assert scan_cache_dir(settings.cache_dir).warnings == []
    path = by_library.fetch(wanted)

    assert path == by_library.path_of(wanted)
    assert files_in(layout.snapshot(wanted.commit)) == FILES
    assert layout.ref("main").read_text() == wanted.commit
