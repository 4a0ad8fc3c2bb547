"""An engine's log file."""

import os
import stat
from pathlib import Path

import pytest

from qrun import engine_log
from qrun.engine_log import EngineLog


def write(log: EngineLog, text: str) -> None:
    """Begin a new log and write to it as an engine would."""
    fd = log.open()
    os.write(fd, text.encode())
    os.close(fd)


def test_new_log_is_the_user_s_alone_in_a_new_folder(tmp_path: Path):
    """Prompts stand in logs: neither file nor folder is for others."""
    log = EngineLog(tmp_path / "state" / "logs" / "engine.log")
    write(log, "")

    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.path.parent.stat().st_mode) == 0o700


def test_next_start_keeps_one_log_before(tmp_path: Path):
    """The log of the start before is kept, older ones are not."""
    log = EngineLog(tmp_path / "engine.log")
    for text in ("first", "second", "third"):
        write(log, text)

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "engine.log": "third",
        "engine.log.1": "second",
    }


def test_tail_is_the_end_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An explanation stands at the end; the rest is not read, and broken text is no obstacle."""
    monkeypatch.setattr(engine_log, "_TAIL_BYTES", 5)
    log = EngineLog(tmp_path / "engine.log")
    log.path.write_bytes(b"a long beginning\xff end")

    assert log.tail() == "\ufffd end"


def test_tail_of_no_log_is_empty(tmp_path: Path):
    """An engine that never started has no log, and an explanation without one is still made."""
    assert EngineLog(tmp_path / "engine.log").tail() == ""


def test_log_over_its_limit_is_emptied_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An engine that runs for months must not fill the disk; it goes on writing to the same open file."""
    monkeypatch.setattr(engine_log, "_MOST_BYTES", 10)
    log = EngineLog(tmp_path / "engine.log")
    fd = log.open()
    os.write(fd, b"ten or so bytes")
    log.keep_small()
    os.write(fd, b"more")
    os.close(fd)

    assert log.path.read_text() == "more"
    assert (tmp_path / "engine.log.1").read_text() == "ten or so bytes"
    assert stat.S_IMODE((tmp_path / "engine.log.1").stat().st_mode) == 0o600


def test_log_is_emptied_even_where_its_end_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A full disk is when emptying matters most."""
    monkeypatch.setattr(engine_log, "_MOST_BYTES", 10)
    log = EngineLog(tmp_path / "engine.log")
    (tmp_path / "engine.log.1").mkdir()
    log.path.write_text("ten or so bytes")
    log.keep_small()

    assert log.path.read_text() == ""


def test_log_within_its_limit_is_left(tmp_path: Path):
    """What is small stays whole, and a log that somebody removed is not made again."""
    log = EngineLog(tmp_path / "engine.log")
    write(log, "short")
    log.keep_small()
    kept = log.tail()
    log.path.unlink()
    log.keep_small()

    assert kept == "short"
    assert list(tmp_path.iterdir()) == []
