"""Bytes on their way: rate and time left by what came in this run, a row a file and one for all, silent in a pipe."""

import os
import pty
import subprocess
import sys
import threading

import pytest

from qrun.render_progress import Meter, Transfer, show_transfer
from qrun.source import Advance

MIB = 2**20
ON_A_TERMINAL = """
import time
from qrun.render_progress import show_transfer
from qrun.source import Advance
with show_transfer(30 * 2**20, 2) as report:
    for done in range(0, 11, 5):
        report(Advance("org/name", "folder/first.gguf", done * 2**20, 10 * 2**20))
        report(Advance("org/name", "second.gguf", done * 2**20, 20 * 2**20))
        time.sleep(0.3)
"""


def at(path: str, done_mib: int, total_mib: int = 100) -> Advance:
    """How far a file is."""
    return Advance("org/name", path, done_mib * MIB, total_mib * MIB)


class Clock:
    """Seconds that pass when a test says so."""

    now_s = 0.0

    def __call__(self):
        """The time."""
        return self.now_s


@pytest.fixture
def clock():
    """A clock at 0."""
    return Clock()


def test_the_rate_is_that_of_what_came_since_the_first_report():
    """20 MiB in 4 s; 70 of 100 MiB are left."""
    meter = Meter(100 * MIB)
    meter.start(10 * MIB, 0.0)
    meter.add(20 * MIB, 4.0)

    assert meter.bytes_per_s(4.0) == 5 * MIB
    assert meter.left_s(4.0) == 14.0


def test_the_rate_forgets_what_was_long_ago_and_feels_a_pause():
    """A slow start does not weigh for ever, and where nothing comes the rate falls."""
    meter = Meter(10_000 * MIB)
    meter.start(0, 0.0)
    for second in range(1, 100):
        meter.add((1 if second < 50 else 100) * MIB, float(second))

    assert meter.bytes_per_s(99.0) == pytest.approx(100 * MIB, rel=0.01)
    assert meter.bytes_per_s(129.0) == pytest.approx(100 * MIB / 3, rel=0.1)


def test_without_a_report_there_is_no_rate():
    """Unknown is None, not zero and not for ever."""
    meter = Meter(MIB)

    assert (meter.bytes_per_s(1.0), meter.left_s(1.0)) == (None, None)
    meter.start(0, 1.0)
    assert (meter.bytes_per_s(1.0), meter.left_s(2.0)) == (None, None)


def test_what_an_earlier_run_had_fetched_is_done_and_not_fast(clock):
    """A resumed file begins at 90 of 100 MiB; one second and 1 MiB later 9 seconds are left, in all 109."""
    transfer = Transfer(200 * MIB, 2, clock)
    transfer(at("a.gguf", 90))
    clock.now_s = 1.0
    transfer(at("a.gguf", 91))

    assert [(row.name, row.line) for row in transfer.rows()] == [
        ("a.gguf", "91.0 MiB of 100.0 MiB, 1.0 MiB/s, 0:09 left"),
        ("0 of 2 files", "91.0 MiB of 200.0 MiB, 1.0 MiB/s, 1:49 left"),
    ]


def test_a_second_file_that_is_there_already_makes_nothing_faster(clock):
    """It counts as done in all from its first report, beside one that is under way."""
    transfer = Transfer(200 * MIB, 2, clock)
    transfer(at("a.gguf", 0))
    clock.now_s = 10.0
    transfer(at("a.gguf", 10))
    transfer(at("b.gguf", 100))

    assert [(row.name, row.line) for row in transfer.rows()] == [
        ("a.gguf", "10.0 MiB of 100.0 MiB, 1.0 MiB/s, 1:30 left"),
        ("1 of 2 files", "110.0 MiB of 200.0 MiB, 1.0 MiB/s, 1:30 left"),
    ]


def test_one_file_has_one_row_and_none_when_it_is_done(clock):
    """A row for all would say the same again."""
    transfer = Transfer(100 * MIB, 1, clock)
    transfer(at("folder/a.gguf", 1))

    assert [row.name for row in transfer.rows()] == ["a.gguf"]
    transfer(at("folder/a.gguf", 100))
    assert transfer.rows() == []


def test_bytes_that_are_fetched_again_are_taken_back(clock):
    """A range that did not verify comes anew: what is done shrinks, and no rate is below nothing."""
    transfer = Transfer(100 * MIB, 1, clock)
    transfer(at("a.gguf", 50))
    clock.now_s = 1.0
    transfer(at("a.gguf", 34))

    assert [row.line for row in transfer.rows()] == ["34.0 MiB of 100.0 MiB"]


def test_reports_of_several_threads_add_up(clock):
    """Ranges of one file and several files at once come from different threads."""
    transfer = Transfer(800 * MIB, 8, clock)

    def fetch(name):
        for done in range(101):
            transfer(at(name, done))

    threads = [threading.Thread(target=fetch, args=(f"{n}.gguf",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (row,) = transfer.rows()
    assert (row.name, row.done_bytes) == ("8 of 8 files", 800 * MIB)


def test_in_a_pipe_nothing_is_shown(capsys):
    """A script's log stays short."""
    with show_transfer(100 * MIB, 1) as report:
        report(at("a.gguf", 50))

    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_the_rows_are_drawn_and_wiped():
    """Names without their folders, bytes, and the row for all; stdout stays free for the answer."""
    main_end, terminal = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL], stdout=subprocess.PIPE, stderr=terminal, env=environ
    ) as child:
        os.close(terminal)
        shown = b""
        while True:
            try:
                read = os.read(main_end, 65536)
            except OSError:  # EIO: the child has closed the other end
                break
            if not read:
                break
            shown += read
        out, _ = child.communicate(timeout=60)
    os.close(main_end)

    assert child.returncode == 0
    assert out == b""
    assert b"folder" not in shown
    for text in (b"first.gguf", b"second.gguf", b"0 of 2 files", b"5.0 MiB of 10.0 MiB", b"MiB/s", b" left"):
        assert text in shown
