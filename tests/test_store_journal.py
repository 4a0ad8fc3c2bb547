from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrun.store_journal import Journal, Ranges, journalled

KEY = "ab" * 32
SIZE = 1000
RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


def _positions(ranges: Ranges) -> set[int]:
    return {position for start, stop in ranges for position in range(start, stop)}


@given(RANGES)
def test_ranges_are_a_set_of_positions(pairs: list[tuple[int, int]]):
    """Whatever is added in whatever order: the same positions as a plain set, sorted, apart and not empty."""
    ranges = Ranges(pairs)
    expected = {position for start, stop in pairs for position in range(start, stop)}

    assert _positions(ranges) == expected
    assert ranges.n_bytes == len(expected)
    assert ranges.frontier == next(n for n in range(62) if n not in expected)
    flat = [bound for pair in ranges for bound in pair]
    assert flat == sorted(set(flat))


@given(RANGES, st.integers(0, 60))
def test_first_gap_is_the_first_run_of_what_is_missing(pairs: list[tuple[int, int]], size: int):
    """The gap starts at the first missing position and goes up to the next that is there, or the end."""
    ranges = Ranges((start, min(stop, size)) for start, stop in pairs)
    missing = sorted(set(range(size)) - _positions(ranges))
    gap = ranges.first_gap(size)

    assert (gap is None) == (not missing)
    if gap is not None:
        assert set(range(*gap)) <= set(missing)
        assert gap[0] == missing[0]
        assert gap[1] not in missing


@given(st.lists(RANGES, max_size=5))
def test_journal_gives_back_what_was_written_down(tmp_path_factory, batches):
    """Over any number of openings, the journal knows exactly the ranges that were added."""
    path = tmp_path_factory.mktemp("journal") / "journal"
    Journal.begin(path, key=KEY, size_bytes=SIZE).close()
    expected = Ranges()
    for batch in batches:
        journal = Journal.resume(path, key=KEY, size_bytes=SIZE)
        journal.add(Ranges(batch))
        journal.close()
        for start, stop in batch:
            expected.add(start, stop)

    assert list(journalled(path, key=KEY, size_bytes=SIZE)) == list(expected)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A journal of three records."""
    path = tmp_path / "journal"
    journal = Journal.begin(path, key=KEY, size_bytes=SIZE)
    for start in (0, 200, 400):
        journal.add(Ranges([(start, start + 100)]))
    journal.close()
    return path


@pytest.mark.parametrize("lost", range(1, 20))
def test_record_that_was_being_written_is_dropped(written: Path, lost: int):
    """A write torn at any byte costs that record alone, and the next one stands in its place."""
    written.write_bytes(written.read_bytes()[:-lost])
    journal = Journal.resume(written, key=KEY, size_bytes=SIZE)
    before = list(journal.ranges)
    journal.add(Ranges([(600, 700)]))
    journal.close()

    assert before == [(0, 100), (200, 300)]
    assert list(journalled(written, key=KEY, size_bytes=SIZE)) == [(0, 100), (200, 300), (600, 700)]


def test_record_of_zeros_at_the_end_is_dropped(written: Path):
    """After a power cut the length of a file may have grown before its content came."""
    written.write_bytes(written.read_bytes() + bytes(30))

    assert list(journalled(written, key=KEY, size_bytes=SIZE)) == [(0, 100), (200, 300), (400, 500)]


@pytest.mark.parametrize("at_record", [0, 1])
def test_journal_damaged_before_its_end_says_nothing(written: Path, at_record: int):
    """That is no torn write, so nothing it says is believed."""
    data = bytearray(written.read_bytes())
    first = data.index(b"\n") + 1
    data[first + 20 * at_record + 3] ^= 1
    written.write_bytes(data)

    assert not journalled(written, key=KEY, size_bytes=SIZE)
    assert Journal.resume(written, key=KEY, size_bytes=SIZE) is None


@given(st.binary(max_size=200))
def test_foreign_bytes_are_no_journal(tmp_path_factory, data: bytes):
    """Whatever stands there: it is told from a journal, and no error."""
    path = tmp_path_factory.mktemp("journal") / "journal"
    path.write_bytes(data)

    assert Journal.resume(path, key=KEY, size_bytes=SIZE) is None


@pytest.mark.parametrize(("key", "size_bytes"), [("cd" * 32, SIZE), (KEY, SIZE + 1)])
def test_journal_of_another_file_says_nothing(written: Path, key: str, size_bytes: int):
    """A journal belongs to one checksum and one size; its records are bound to both."""
    own = written.read_bytes()

    assert Journal.resume(written, key=key, size_bytes=size_bytes) is None
    line = f"qrun-journal 1 {key} {size_bytes}\n".encode()
    written.write_bytes(line + own[own.index(b"\n") + 1 :])
    assert not journalled(written, key=key, size_bytes=size_bytes)


def test_no_journal_says_nothing(tmp_path: Path):
    """A file that is not there, or a folder that is not, is no error."""
    assert Journal.resume(tmp_path / "none", key=KEY, size_bytes=SIZE) is None
    assert not journalled(tmp_path / "no" / "folder", key=KEY, size_bytes=SIZE)


def test_record_that_the_disk_refuses_leaves_the_journal_as_it_was(written: Path, monkeypatch: pytest.MonkeyPatch):
    """A full disk may take half of a record: it is cut off again, and later ones can be read."""
    journal = Journal.resume(written, key=KEY, size_bytes=SIZE)
    with monkeypatch.context() as patch:
        patch.setattr("qrun.store_journal.sync_data", _full)
        with pytest.raises(OSError, match="No space"):
            journal.add(Ranges([(600, 700)]))
    journal.add(Ranges([(800, 900)]))
    journal.close()

    assert (600, 700) not in list(journalled(written, key=KEY, size_bytes=SIZE))
    assert (800, 900) in list(journalled(written, key=KEY, size_bytes=SIZE))


def _full(fd: int) -> None:
    raise OSError(28, "No space left on device")
