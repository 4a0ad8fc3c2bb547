"""Calls in threads: their order, their bound, their errors, and who waits for whom."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from qrun.hub_threads import in_threads


def test_results_come_in_the_order_of_the_calls():
    """However long each takes."""
    gate = threading.Event()

    def first():
        gate.wait(20)
        return 1

    def second():
        gate.set()
        return 2

    assert in_threads([first, second], most=4) == [1, 2]
    assert in_threads([], most=4) == []


def test_no_more_run_at_once_than_allowed():
    """The bound holds, and is used."""
    lock, met = threading.Lock(), threading.Barrier(3)
    running = peak = 0

    def call():
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        met.wait(20)
        with lock:
            running -= 1

    in_threads([call] * 9, most=3)

    assert peak == 3


def test_the_first_error_by_order_is_raised_after_all_have_ended():
    """Not the first by time, so that the same failure gives the same message."""
    ended, later = [], threading.Event()

    def slow_failure():
        later.wait(20)
        ended.append("slow")
        raise ValueError("slow")

    def quick_failure():
        later.set()
        raise KeyError("quick")

    with pytest.raises(ValueError, match="slow"):
        in_threads([slow_failure, quick_failure, lambda: ended.append("fine")], most=3)

    assert sorted(ended) == ["fine", "slow"]


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_ctrl_c_ends_the_process_while_calls_hang():
    """A Hub that does not answer holds up nobody who wants to leave: the process ends with its threads waiting."""
    script = (
        "import threading\n"
        "from qrun.hub_threads import in_threads\n"
        "ready = threading.Barrier(3, action=lambda: print('ready', flush=True))\n"
        "def hang():\n    ready.wait()\n    threading.Event().wait()\n"
        "in_threads([hang] * 3, most=3)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"

    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
