"""`qrun list`, `rm`, `verify` and `prune` on caches that the real huggingface_hub has made, beside what others keep."""

import hashlib
import json
import os
import pty
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock
from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download

from qrun.cli.main import run_cli
from qrun.config import read_config
from qrun.store_layout import RepoLayout
from qrun.store_ledger import Entry, Ledger
from qrun.store_prune import prunable
from qrun.store_scan import stored_repos

REPO = "quanter/Tiny-1B-Instruct-GGUF"
FILE = "Tiny-1B-Instruct-Q8_0.gguf"
WEIGHTS = b"GGUF" + bytes(range(256)) * 100
CARD = b"---\nbase_model: acme/Tiny-1B-Instruct\nbase_model_relation: quantized\n---\n"
DAY_S = 24 * 3600


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty Hub cache of the test's own, that the commands see; so is the record of what qrun stored."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("QRUN_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "hub"


@pytest.fixture
def stored(hub, cache):
    """The cache with one quant repo, by huggingface_hub; gives its commit."""
    commit = hub.add_repo(REPO, {FILE: WEIGHTS, "README.md": CARD})
    snapshot_download(REPO, endpoint=hub.endpoint, cache_dir=cache)
    return commit


@pytest.fixture
def qrun(capsys):
    """Runs a command in this process; gives exit code, stdout and stderr."""

    def run(*args):
        capsys.readouterr()  # huggingface_hub's own bars
        code = run_cli(list(args))
        return code, *capsys.readouterr()

    return run


def layout(cache: Path) -> RepoLayout:
    """The places of the quant repo."""
    return RepoLayout(cache, REPO)


def sha256_of(content: bytes) -> str:
    """As the Hub names LFS files."""
    return hashlib.sha256(content).hexdigest()


def older(path: Path, seconds: float) -> None:
    """Let the file have been written so long ago."""
    at_s = time.time() - seconds
    os.utime(path, (at_s, at_s))


def everything(folder: Path) -> dict[Path, bytes | str | None]:
    """What is in a folder, to be held against a later look."""
    return {
        path: str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def other_tools(hub, cache: Path) -> list[Path]:
    """What others keep beside our models: a dataset, a tokenizer without weights, and another model."""
    hub.add_repo("acme/Tiny-1B-Instruct", {"tokenizer.json": b"{}", "config.json": b"{}"})
    hub.add_repo("other/Great-7B-GGUF", {"Great-7B.Q8_0.gguf": WEIGHTS + b"!"})
    snapshot_download("acme/Tiny-1B-Instruct", endpoint=hub.endpoint, cache_dir=cache)
    snapshot_download("other/Great-7B-GGUF", endpoint=hub.endpoint, cache_dir=cache)
    dataset = cache / "datasets--acme--Tiny-1B-Instruct"
    (dataset / "snapshots" / "0").mkdir(parents=True)
    return [dataset, cache / "models--acme--Tiny-1B-Instruct", cache / "models--other--Great-7B-GGUF"]


def test_list_as_json_is_a_contract(qrun, cache, stored):
    """Per stored repo its id, revision, size and files with sha256; null where the Hub names a git id instead."""
    code, out, err = qrun("list", "--json")

    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "cache_dir": str(cache),
        "repos": [
            {
                "repo_id": REPO,
                "revision": stored,
                "refs": ["main"],
                "size_bytes": len(WEIGHTS) + len(CARD),
                "files": [
                    {"path": "README.md", "size_bytes": len(CARD), "sha256": None},
                    {"path": FILE, "size_bytes": len(WEIGHTS), "sha256": sha256_of(WEIGHTS)},
                ],
            }
        ],
        "partial": [],
        "foreign": [],
    }


def test_the_list_is_one_row_a_revision(qrun, cache, stored):
    """Repo, start of the commit with its branch, quants, size."""
    code, out, err = qrun("list")
    (row,) = out.splitlines()[1:]

    assert (code, err) == (0, "")
    assert row.split() == [REPO, stored[:12], "(main)", "Q8_0", "0.0", "MiB", "2"]


def test_an_empty_list_says_where_it_looked(qrun, cache):
    """No folder yet: exit 0, for nothing is wrong."""
    code, out, _ = qrun("list")

    assert code == 0
    assert out == f"No model is stored in {cache}.\n"
    assert json.loads(qrun("list", "--json")[1])["repos"] == []


def test_the_list_shows_models_alone(hub, qrun, cache, stored):
    """A tokenizer or a dataset that another tool keeps is none of qrun's."""
    other_tools(hub, cache)

    assert [one["repo_id"] for one in json.loads(qrun("list", "--json")[1])["repos"]] == ["other/Great-7B-GGUF", REPO]


def test_the_list_shows_what_is_unfinished_and_what_is_used_in_place(qrun, cache, stored, tmp_path):
    """Parts of ours and of other tools, wrong bytes, and files of other tools that qrun runs from."""
    partial = layout(cache).partial(sha256_of(b"a"))
    partial.write_bytes(b"half")
    layout(cache).set_aside(sha256_of(b"b")).write_bytes(b"wrong")
    (layout(cache).blobs / f"{sha256_of(b'c')}.incomplete").write_bytes(b"other")
    held = tmp_path / "sha256-1"
    held.write_bytes(WEIGHTS)
    ledger = Ledger(read_config().ledger_dir)
    ledger.add(Entry("other/Great-7B-GGUF", "1" * 40, "main", ("a.gguf",), 1.0, "Ollama", (str(held),)))
    ledger.add(Entry("gone/Great-7B-GGUF", "1" * 40, "main", ("a.gguf",), 1.0, "Ollama", (str(held) + "gone",)))

    document = json.loads(qrun("list", "--json")[1])
    lines = qrun("list")[1].splitlines()

    assert {(one["kind"], one["by_qrun"]) for one in document["partial"]} == {
        ("partial", True),
        ("set_aside", True),
        ("partial", False),
    }
    assert document["partial"][0]["size_bytes"] > 0
    assert [(one["tool"], one["files"]) for one in document["foreign"]] == [("Ollama", [str(held)])]
    assert sum(REPO in line and "partial" in line for line in lines) == 2
    assert lines[-1] == f"  other/Great-7B-GGUF as Ollama holds it: {held}"


def test_links_in_a_circle_hide_no_other_model(qrun, cache, stored):
    """What somebody left broken in one repo leads nowhere; the others are listed and checked as ever."""
    broken = cache / "models--other--Broken-GGUF" / "snapshots"
    (broken / stored).mkdir(parents=True)
    for link in (broken / "circle", broken / stored / "Broken-Q8_0.gguf"):
        link.symlink_to(link.name)

    listed = json.loads(qrun("list", "--json")[1])["repos"]
    code, out, _ = qrun("verify", REPO)

    assert [(one["repo_id"], one["size_bytes"]) for one in listed] == [
        ("other/Broken-GGUF", 0),
        (REPO, len(WEIGHTS) + len(CARD)),
    ]
    assert code == 0
    assert out.startswith("2 files")


def test_rm_deletes_the_repo_and_nothing_beside_it(hub, qrun, cache, stored):
    """By the base's name; what other tools keep is byte for byte as before, and their scan finds nothing wrong."""
    kept = other_tools(hub, cache)
    before = {path: everything(path) for path in kept}
    layout(cache).partial(sha256_of(b"a")).write_bytes(b"half")

    code, out, err = qrun("rm", "tiny 1b instruct", "--yes")

    assert (code, err) == (0, "")
    assert out.startswith(f"Deleted {REPO}: ")
    assert not layout(cache).folder.exists()
    assert {path: everything(path) for path in kept} == before
    assert not scan_cache_dir(cache).warnings
    assert not scan_cache_dir(cache).incomplete_files


def test_rm_says_in_json_what_was_freed(qrun, cache, stored):
    """The sizes are those of the bytes, not of links."""
    code, out, _ = qrun("rm", REPO, "--yes", "--json")

    assert code == 0
    assert json.loads(out) == {
        "removed": [{"repo_id": REPO, "revisions": [stored], "size_bytes": len(WEIGHTS) + len(CARD)}],
        "freed_bytes": len(WEIGHTS) + len(CARD),
    }


def test_rm_without_a_terminal_needs_yes(qrun_exe, cache, stored):
    """Exit 2 with what would be deleted, and nothing is."""
    before = everything(cache)
    done = subprocess.run([qrun_exe, "rm", REPO], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert f"--yes deletes {REPO}" in done.stderr
    assert everything(cache) == before


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 1)])
def test_rm_asks_on_a_terminal(qrun_exe, cache, stored, answer, code):
    """Yes deletes; anything else does not."""
    main_end, terminal = pty.openpty()
    with subprocess.Popen(
        [qrun_exe, "rm", REPO], stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        os.write(main_end, answer)
        _, err = child.communicate(timeout=60)
    os.close(terminal)
    os.close(main_end)

    assert child.returncode == code
    assert b"Delete quanter/Tiny-1B-Instruct-GGUF" in err
    assert layout(cache).folder.exists() is (answer != b"y\n")


def test_rm_of_a_name_that_is_not_stored_offers_the_nearest(qrun, cache, stored):
    """Exit 3; nothing is deleted, not even what was named rightly beside it."""
    code, _, err = qrun("rm", REPO, "Tinny-1B-Instruct", "--yes")

    assert code == 3
    assert "Did you mean acme/Tiny-1B-Instruct" in err
    assert layout(cache).folder.exists()


@pytest.mark.parametrize("name", [f"{REPO}:Q8_0", f"{REPO}@main", "./model.gguf", ""])
def test_rm_takes_whole_repos_alone(qrun, cache, stored, name):
    """A quant, a revision or a path behind a name is refused rather than passed over."""
    assert qrun("rm", name, "--yes")[0] == 2
    assert layout(cache).folder.exists()


def test_rm_deletes_what_huggingface_hub_s_own_scan_refuses(qrun, cache, stored):
    """A repo whose link leads nowhere, or that has nothing but a part of a first download."""
    layout(cache).blob(sha256_of(WEIGHTS)).unlink()
    begun = RepoLayout(cache, "other/Begun-7B-GGUF")
    begun.blobs.mkdir(parents=True)
    begun.partial(sha256_of(b"a")).write_bytes(b"half")
    assert len(scan_cache_dir(cache).warnings) == 2

    code, out, _ = qrun("rm", REPO, "Begun-7B", "--yes", "--json")

    assert code == 0
    assert [one["repo_id"] for one in json.loads(out)["removed"]] == [REPO, "other/Begun-7B-GGUF"]
    assert stored_repos(cache) == ()


def test_rm_of_one_copy_leaves_a_repo_with_the_same_commit_alone(qrun, cache, stored):
    """A repo that was duplicated on the Hub has the commits of the first: only the named one goes."""
    twin = cache / "models--another--Tiny-1B-Instruct-GGUF"
    shutil.copytree(layout(cache).folder, twin, symlinks=True)
    before = everything(twin)

    assert qrun("rm", REPO, "--yes")[0] == 0
    assert everything(twin) == before
    assert not layout(cache).folder.exists()


def test_rm_waits_for_no_download_and_breaks_none(qrun, cache, stored):
    """Somebody holds the lock of a blob that is being fetched: exit 1, and all stays."""
    key = sha256_of(b"a")
    layout(cache).partial(key).write_bytes(b"half")
    layout(cache).lock(key).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(layout(cache).lock(key)):
        code, _, err = _in_a_process("rm", REPO, "--yes")

    assert code == 1
    assert "is being fetched just now" in err
    assert layout(cache).folder.exists()
    assert qrun("rm", REPO, "--yes")[0] == 0


def test_rm_forgets_what_it_stored(qrun, cache, stored):
    """The record names no repo that is gone."""
    ledger = Ledger(read_config().ledger_dir)
    ledger.add(Entry(REPO, stored, "main", (FILE,), 1.0))
    ledger.add(Entry("other/Great-7B-GGUF", "1" * 40, "main", ("a.gguf",), 2.0))

    assert qrun("rm", REPO, "--yes")[0] == 0
    assert [entry.repo_id for entry in ledger.entries()] == ["other/Great-7B-GGUF"]


def test_verify_reads_every_stored_file(hub, qrun, cache, stored):
    """sha256 and git ids, of all models or of one; exit 0."""
    other_tools(hub, cache)

    code, out, err = qrun("verify", "--json")
    files = json.loads(out)["files"]

    assert (code, err) == (0, "")
    assert [(one["path"], one["outcome"]) for one in files] == [
        ("Great-7B.Q8_0.gguf", "whole"),
        ("README.md", "whole"),
        (FILE, "whole"),
    ]
    assert files[2]["expected"] == files[2]["found"] == sha256_of(WEIGHTS)
    assert qrun("verify", "Tiny-1B-Instruct")[1] == "2 files of 0.0 MiB verified.\n"


def test_wrong_bytes_are_set_aside_and_named(hub, qrun, cache, stored):
    """Exit 8 with the sha256; no link leads to them any more, and huggingface_hub fetches the file anew."""
    link = layout(cache).file(stored, FILE)
    link.resolve().write_bytes(b"X" + WEIGHTS[1:])

    code, out, err = qrun("verify")

    assert code == 8
    assert f"wrong: {REPO}/{FILE}" in out
    assert len(err.splitlines()) == 1
    assert sha256_of(WEIGHTS) in err
    assert sha256_of(b"X" + WEIGHTS[1:]) in err
    assert not link.is_symlink()
    assert layout(cache).set_aside(sha256_of(WEIGHTS)).read_bytes() == b"X" + WEIGHTS[1:]
    assert not scan_cache_dir(cache).warnings
    assert qrun("verify")[0] == 0
    assert Path(hf_hub_download(REPO, FILE, endpoint=hub.endpoint, cache_dir=cache)).read_bytes() == WEIGHTS


def test_a_wrong_file_that_is_not_in_lfs_is_told_by_its_git_id(qrun, cache, stored):
    """The Hub names no sha256 for a small file; git's id serves as well."""
    layout(cache).file(stored, "README.md").resolve().write_bytes(CARD + b"x")

    code, _, err = qrun("verify", REPO)

    assert code == 8
    assert "its git id is" in err


def test_wrong_bytes_hide_no_other_wrong_bytes(hub, qrun, cache, stored):
    """All files of all repos are read before the first refusal is raised."""
    other_tools(hub, cache)
    for repo in stored_repos(cache):
        for file in repo.snapshots[0].folder.glob("*.gguf"):
            file.resolve().write_bytes(b"")

    code, out, _ = qrun("verify", "--json")

    assert code == 8
    assert [one["outcome"] for one in json.loads(out)["files"]] == ["wrong", "whole", "wrong"]


def test_a_link_that_leads_nowhere_is_missing(qrun, cache, stored):
    """Exit 8, and what brings it back."""
    layout(cache).blob(sha256_of(WEIGHTS)).unlink()

    code, out, err = qrun("verify")

    assert code == 8
    assert f"missing: {REPO}/{FILE}" in out
    assert f"qrun pull {REPO}" in err


def test_copies_without_a_checksum_are_said_to_be_unchecked(qrun, cache, stored):
    """Where links cannot be made (Windows) a snapshot holds copies, and nothing here tells their checksum."""
    link = layout(cache).file(stored, FILE)
    link.unlink()
    link.write_bytes(WEIGHTS)

    code, out, _ = qrun("verify", REPO)

    assert code == 0
    assert out.splitlines()[-1].startswith("1 file not checked")


def test_verify_of_an_unknown_name_is_exit_3(qrun, cache, stored):
    """With the nearest."""
    code, _, err = qrun("verify", "Tinny-1B-Instruct")

    assert code == 3
    assert "Did you mean" in err


def test_prune_takes_our_old_leftovers_alone(qrun, cache, stored):
    """Not another tool's parts, not ours of today, not what is being fetched, and nothing whole."""
    keys = [sha256_of(bytes([n])) for n in range(4)]
    ours, wrong = layout(cache).partial(keys[0]), layout(cache).set_aside(keys[1])
    for path in (ours, wrong):
        path.write_bytes(b"old")
        older(path, 2 * DAY_S)
    layout(cache).partial(keys[2]).write_bytes(b"of today")
    theirs = layout(cache).blobs / f"{keys[3]}.incomplete"
    theirs.write_bytes(b"theirs")
    older(theirs, 9 * DAY_S)
    before = everything(cache)

    dry = json.loads(qrun("prune", "--dry-run", "--json")[1])
    assert everything(cache) == before
    code, out, err = qrun("prune", "--json")

    assert (code, err) == (0, "")
    assert set(before) - set(everything(cache)) == {ours, wrong}
    assert [(one["kind"], one["paths"]) for one in json.loads(out)["pruned"]] == [
        (one["kind"], one["paths"]) for one in dry["pruned"]
    ]
    assert json.loads(out)["freed_bytes"] == dry["freed_bytes"] > 0
    assert qrun("prune")[1] == "Nothing to prune.\n"


def test_prune_leaves_what_is_being_fetched(qrun, cache, stored):
    """A download that hangs for a day is still somebody's."""
    key = sha256_of(b"a")
    layout(cache).partial(key).write_bytes(b"half")
    older(layout(cache).partial(key), 2 * DAY_S)
    layout(cache).lock(key).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(layout(cache).lock(key)):
        code, _, _ = _in_a_process("prune")

    assert code == 0
    assert layout(cache).partial(key).exists()


def moved_on(hub, cache: Path) -> tuple[str, str]:
    """A repo of which two commits are stored, the branch being at the second; gives both."""
    first = hub.add_repo(REPO, {FILE: WEIGHTS, "README.md": CARD})
    snapshot_download(REPO, endpoint=hub.endpoint, cache_dir=cache)
    second = hub.replace_files(REPO, {FILE: WEIGHTS + b"new", "README.md": CARD})
    snapshot_download(REPO, endpoint=hub.endpoint, cache_dir=cache)
    return first, second


def test_prune_takes_a_superseded_revision_that_qrun_fetched(hub, qrun, cache):
    """Its own bytes go; what the newer revision shares with it stays, and the cache is sound."""
    first, second = moved_on(hub, cache)
    Ledger(read_config().ledger_dir).add(Entry(REPO, first, "main", (FILE, "README.md"), 1.0))

    code, out, _ = qrun("prune", "--json")

    assert code == 0
    assert [(one["kind"], one["revisions"], one["size_bytes"]) for one in json.loads(out)["pruned"]] == [
        ("superseded", [first], len(WEIGHTS))
    ]
    assert not layout(cache).snapshot(first).exists()
    assert layout(cache).file(second, FILE).read_bytes() == WEIGHTS + b"new"
    assert layout(cache).file(second, "README.md").read_bytes() == CARD
    assert not scan_cache_dir(cache).warnings
    assert Ledger(read_config().ledger_dir).entries() == ()


@pytest.mark.parametrize(
    ("paths", "tool"), [((), None), ((FILE,), None), ((FILE, "README.md"), "Ollama")], ids=["none", "some", "foreign"]
)
def test_prune_leaves_revisions_that_others_fetched_in_whole_or_part(hub, qrun, cache, paths, tool):
    """Only what the record says that qrun stored, and all of it."""
    first, _ = moved_on(hub, cache)
    if paths:
        Ledger(read_config().ledger_dir).add(Entry(REPO, first, "main", paths, 1.0, tool))
    before = everything(cache)

    assert qrun("prune")[1] == "Nothing to prune.\n"
    assert everything(cache) == before


@pytest.mark.parametrize(("path", "goes"), [(FILE, False), ("Tiny-1B-Instruct-Q4_0.gguf", True)])
def test_prune_leaves_what_a_decision_names_and_stored_files_alone_count(hub, cache, path, goes):
    """The next same request serves the old commit's file; a decision for a file that is not stored holds nothing."""
    first, _ = moved_on(hub, cache)
    ours = Entry(REPO, first, "main", (FILE, "README.md"), 1.0)

    found = prunable(cache, stored_repos(cache), [ours], {(first, path)}, now_s=time.time())

    assert [one.commits for one in found] == [(first,)] * goes


def test_prune_leaves_a_superseded_revision_whose_files_the_newer_has_not(hub, qrun, cache):
    """Of the newer commit only the card was fetched: the weights are nowhere else."""
    first = hub.add_repo(REPO, {FILE: WEIGHTS, "README.md": CARD})
    snapshot_download(REPO, endpoint=hub.endpoint, cache_dir=cache)
    hub.replace_files(REPO, {FILE: WEIGHTS + b"new", "README.md": CARD})
    hf_hub_download(REPO, "README.md", endpoint=hub.endpoint, cache_dir=cache)
    Ledger(read_config().ledger_dir).add(Entry(REPO, first, "main", (FILE, "README.md"), 1.0))

    assert qrun("prune")[1] == "Nothing to prune.\n"
    assert layout(cache).file(first, FILE).read_bytes() == WEIGHTS


def test_the_record_survives_two_writers_and_damage(cache):
    """Entries written at once are all there; the same files again replace their entry; a damaged one is passed over."""
    ledger = Ledger(read_config().ledger_dir)
    writers = [
        threading.Thread(target=ledger.add, args=(Entry(REPO, "1" * 40, "main", (f"{n}.gguf",), float(n)),))
        for n in range(20)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    ledger.add(Entry(REPO, "1" * 40, "main", ("0.gguf",), 99.0))
    (read_config().ledger_dir / "damaged.json").write_text("{")

    assert [entry.at_s for entry in ledger.entries()] == [*map(float, range(1, 20)), 99.0]


def _in_a_process(*args):
    """A command in a process of its own: locks are held against other processes."""
    done = subprocess.run(
        [sys.executable, "-m", "qrun", *args], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return done.returncode, done.stdout, done.stderr
