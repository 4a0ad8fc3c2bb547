"""What is kept on the disk comes back whole or not at all, whoever else writes there."""

import os
import subprocess
import sys
import time

import pytest

from qrun import hub_cache
from qrun.hub_cache import Entry, HubCache


@pytest.fixture
def cache(tmp_path):
    return HubCache(tmp_path / "cache")


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("payload", [b"", b"\n", b"answer", bytes(range(256)) * 5000])
def test_what_was_put_comes_back(cache, payload):
    """Any bytes, under any key, for a later process too."""
    cache.put("a key with / .. and \x00", payload)

    entry = cache.get("a key with / .. and \x00")
    assert entry.payload == payload
    assert entry.is_fresh(60)
    assert cache.get("another key") is None


def test_the_later_answer_replaces_the_earlier(cache, tmp_path):
    """A key has one answer, and nothing of the writing is left over."""
    cache.put("key", b"old")
    cache.put("key", b"new")

    assert cache.get("key").payload == b"new"
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize("age_s", [61, -5])
def test_an_entry_is_fresh_for_its_lifetime_and_never_from_the_future(age_s):
    """A clock that was set back makes no entry immortal."""
    assert not Entry(b"", time.time() - age_s).is_fresh(60)
    assert Entry(b"", time.time() - 30).is_fresh(60)


@pytest.mark.parametrize("n_bytes", [0, 1, 20, 90, 105, -1])
def test_an_entry_that_is_cut_is_none(cache, tmp_path, n_bytes):
    """A file that lost its end, or all of it, is as good as not there, and can be written again."""
    cache.put("key", b"answer")
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:n_bytes])

    assert cache.get("key") is None
    cache.put("key", b"answer")
    assert cache.get("key").payload == b"answer"


def test_a_changed_byte_anywhere_is_noticed(cache, tmp_path):
    """Version, checksum and answer are all looked at; of the time, at least that it is one."""
    cache.put("key", b"answer")
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    time_at = whole.index(b"\n") - whole[: whole.index(b"\n")][::-1].index(b" ")

    for at in [*range(time_at), *range(whole.index(b"\n"), len(whole))]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        assert cache.get("key") is None


def test_an_entry_of_another_key_in_its_place_is_none(cache, tmp_path):
    """The key is part of the checksum."""
    cache.put("one", b"1")
    (one,) = files(tmp_path)
    cache.put("two", b"2")
    (two,) = set(files(tmp_path)) - {one}
    two.write_bytes(one.read_bytes())

    assert cache.get("two") is None


def test_a_folder_that_cannot_be_written_costs_nothing_but_requests(tmp_path):
    """A full disk, a read-only home: the answer is in hand, so nothing is raised, and nothing is kept."""
    (tmp_path / "file").write_text("in the way")
    cache = HubCache(tmp_path / "file")

    cache.put("key", b"answer")

    assert cache.get("key") is None


@pytest.mark.skipif(os.name == "nt", reason="no file modes there")
def test_others_cannot_read_what_is_kept(cache, tmp_path):
    """It names private repos."""
    cache.put("key", b"answer")

    assert [path.stat().st_mode & 0o077 for path in files(tmp_path)] == [0]


def test_what_was_used_longest_ago_goes_first(tmp_path):
    """The folder stays below its bound, and keeps what is asked for."""
    cache = HubCache(tmp_path, most_bytes=5000)
    for number in range(4):
        cache.put(str(number), bytes(1000))
        os.utime(max(files(tmp_path), key=lambda path: path.stat().st_mtime), (number, number))
    assert cache.get("0") is not None  # used now, though written first
    for number in range(4, 6):
        cache.put(str(number), bytes(1000))

    cache.prune()

    assert [number for number in range(6) if cache.get(str(number)) is not None] == [0, 4, 5]
    assert sum(path.stat().st_size for path in files(tmp_path)) < 5000


def test_the_bound_is_looked_after_while_writing(tmp_path, monkeypatch):
    """No call of its own is needed: at the first write of a process, and every so many bytes."""
    monkeypatch.setattr(hub_cache, "_PRUNE_EVERY_BYTES", 3000)
    cache = HubCache(tmp_path, most_bytes=5000)
    for number in range(30):
        cache.put(str(number), bytes(1000))

    assert sum(path.stat().st_size for path in files(tmp_path)) < 5000 + 3000 + 1200
    HubCache(tmp_path, most_bytes=2000).put("first", b"")
    assert sum(path.stat().st_size for path in files(tmp_path)) < 2000


def test_processes_share_the_folder_without_harm(tmp_path):
    """Writers, readers and pruners of the same entries: whoever gets an answer gets a whole one."""
    script = (
        "import sys; from pathlib import Path; from qrun.hub_cache import HubCache\n"
        "cache = HubCache(Path(sys.argv[1]), most_bytes=200_000)\n"
        "for turn in range(150):\n"
        "    for key in 'abcde':\n"
        "        cache.put(key, (key * (20_000 + turn)).encode())\n"
        "        entry = cache.get(key)\n"
        "        assert entry is None or set(entry.payload) == {ord(key)}, key\n"
        "    cache.prune()\n"
    )

    running = [
        subprocess.Popen([sys.executable, "-c", script, tmp_path], stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    errors = [process.communicate()[1] for process in running]

    assert errors == ["", "", ""]
    assert list(tmp_path.rglob("writing-*")) == []
