"""The stamp: an engine is in force through it, and through nothing else."""

import pytest

from qrun.engine_stamp import Stamp, read_stamp, write_stamp


@pytest.fixture
def stamp(tmp_path):
    """A stamp whose environment is there."""
    (tmp_path / "ready-1").mkdir()
    return Stamp(tmp_path / "ready-1", "ready", "1", frozenset({"cpu", "metal"}), "2026-11-24T10:00:00+00:00", 0.2)


def test_what_is_written_is_read_again(tmp_path, stamp):
    """A stamp survives its file."""
    write_stamp(tmp_path, stamp)

    assert read_stamp(tmp_path) == stamp
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current.json", "ready-1"]


def test_without_its_environment_a_stamp_is_none(tmp_path, stamp):
    """Somebody removed the environment: nothing is installed."""
    write_stamp(tmp_path, stamp)
    stamp.environment.rmdir()

    assert read_stamp(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"environment": "ready-1"}', '{"environment": 3}'])
def test_a_stamp_that_cannot_be_read_is_none(tmp_path, stamp, text):
    """A damaged or foreign stamp is as good as none: the next install writes it anew."""
    (tmp_path / "current.json").write_text(text)

    assert read_stamp(tmp_path) is None


def test_no_folder_no_stamp(tmp_path):
    """Before the first install there is not even a folder."""
    assert read_stamp(tmp_path / "engines") is None
