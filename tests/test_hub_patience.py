"""How long the Hub is asked again, and when, on a clock that only pauses move."""

import threading
from types import SimpleNamespace

import pytest

from qrun import hub_patience
from qrun.hub_errors import HubUnreachable
from qrun.hub_patience import Patience


class Clock:
    """A clock that stands still but for the pauses that are taken."""

    def __init__(self):
        self.now = 1000.0
        self.pauses = []

    def monotonic(self):
        """In place of time.monotonic."""
        return self.now

    def sleep(self, seconds):
        """In place of a pause."""
        self.pauses.append(seconds)
        self.now += max(0.0, seconds)


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(hub_patience, "time", SimpleNamespace(monotonic=made.monotonic))
    return made


@pytest.fixture
def patience(clock, monkeypatch):
    made = Patience("hub", 20.0)
    monkeypatch.setattr(made, "sleep", clock.sleep)
    return made


def fail_to_the_end(effort):
    """Fail until the effort gives up; its error."""
    for _ in range(1000):
        effort.wait_turn()
        try:
            effort.failed("Connection refused")
        except HubUnreachable as error:
            return error
    pytest.fail("it never gives up")


def test_what_fails_is_tried_for_the_time_given_and_no_longer(clock, patience):
    """All pauses together are `retry_s`, the last try is at its end, and the error says how often and how long."""
    began = clock.now

    error = fail_to_the_end(patience.effort("api"))

    assert clock.now - began == pytest.approx(20.0)
    assert error.why.startswith("Connection refused (")
    assert error.why.endswith(" tries in 20 s)")


def test_pauses_grow_and_are_not_all_alike(clock, patience):
    """From a quarter second, doubled up to four, each shortened by chance so that many do not beat in time."""
    effort = patience.effort("api")
    longest = [0.25, 0.5, 1.0, 2.0, 4.0, 4.0]
    for _ in longest:
        effort.failed("x")

    assert all(most / 2 <= pause <= most for pause, most in zip(clock.pauses, longest, strict=True))
    assert len(set(clock.pauses)) > 3


def test_no_time_means_one_try(patience):
    """`retry_s` of 0 asks once."""
    patience.retry_s = 0.0

    error = fail_to_the_end(patience.effort("api"))

    assert error.why == "Connection refused (1 try in 0 s)"


def test_a_try_that_itself_takes_long_counts(clock, patience):
    """The time runs from the start of the first try that failed: two timeouts of 10 s are the end."""
    effort = patience.effort("api")
    effort.wait_turn()
    clock.now += 10
    effort.failed("timed out")
    effort.wait_turn()
    clock.now += 10

    with pytest.raises(HubUnreachable, match=r"2 tries in 2\d s"):
        effort.failed("timed out")


def test_a_hub_that_is_down_costs_the_time_once_not_once_a_call(clock, patience):
    """Calls one after another share the time: those that come after its end try once and give up."""
    fail_to_the_end(patience.effort("api"))
    ended = clock.now

    errors = [fail_to_the_end(patience.effort("api")) for _ in range(5)]

    assert clock.now == ended
    assert [error.why[:27] for error in errors] == ["Connection refused (1 try i"] * 5


def test_calls_at_once_end_together(clock, patience):
    """Who comes late into an outage has what is left of its time."""
    first, late = patience.effort("api"), patience.effort("api")
    first.wait_turn()
    first.failed("x")
    clock.now += 15
    late.wait_turn()
    late.failed("x")

    assert late.left_s() == pytest.approx(first.left_s())


def test_an_answer_ends_the_outage(clock, patience):
    """After a good answer the time begins anew."""
    fail_to_the_end(patience.effort("api"))
    patience.effort("api").succeeded()

    effort = patience.effort("api")
    effort.wait_turn()
    effort.failed("x")

    assert effort.left_s() > 15


def test_an_outage_of_long_ago_is_over(clock, patience):
    """A process that lives for days waits out each bad moment, not the first alone."""
    fail_to_the_end(patience.effort("api"))
    clock.now += 3600

    effort = patience.effort("api")
    effort.wait_turn()
    effort.failed("x")

    assert effort.left_s() > 15


def test_one_route_that_fails_beside_others_that_work_still_ends(patience):
    """Other calls' good answers give a broken route no more time."""
    effort = patience.effort("api")
    with pytest.raises(HubUnreachable):  # noqa: PT012 - the loop is what must end
        for _ in range(1000):
            effort.wait_turn()
            effort.failed("x")
            patience.effort("api").succeeded()


def test_files_and_api_fail_apart(clock, patience):
    """The storage's outage takes no time from the API's."""
    fail_to_the_end(patience.effort("file"))

    effort = patience.effort("api")
    effort.wait_turn()
    effort.failed("x")

    assert effort.left_s() > 15


def test_a_download_that_goes_on_is_given_new_time(clock, patience):
    """Bytes that came are a success: a file of an hour may break every minute."""
    effort = patience.effort("file")
    for _ in range(60):
        effort.wait_turn()
        effort.succeeded()
        clock.now += 1
        effort.failed("reset")

    assert effort.left_s() > 15


def test_a_pause_that_the_hub_asks_for_holds_back_all_of_that_kind(clock, patience):
    """Everybody waits who asks the API; who reads files does not."""
    patience.effort("api").held_back("it answers 429 Too Many Requests", 7.0)
    began = clock.now

    patience.effort("file").wait_turn()
    after_file = clock.now
    patience.effort("api").wait_turn()

    assert after_file == began
    assert 7.0 <= clock.now - began <= 7.5


def test_a_pause_beyond_the_time_left_is_an_error_that_names_it(clock, patience):
    """Nobody waits five minutes without a word."""
    effort = patience.effort("api")
    effort.held_back("it answers 429 Too Many Requests", 290.0)

    with pytest.raises(HubUnreachable, match=r"pause of 290 s \(it answers 429 Too Many Requests\).*log in") as error:
        effort.wait_turn()
    with pytest.raises(HubUnreachable, match="pause of 290 s"):
        patience.effort("api").wait_turn()
    assert clock.pauses == []
    assert "--offline" in str(error.value)


def test_pauses_that_never_end_are_an_error(patience):
    """A Hub that asks for one second again and again has all the time there is, and no more."""
    effort = patience.effort("api")
    with pytest.raises(HubUnreachable, match="pause of 1 s"):  # noqa: PT012 - the loop is what must end
        for _ in range(1000):
            effort.wait_turn()
            effort.held_back("it answers 503 Service Unavailable", 1.0)


@pytest.mark.parametrize("pause_s", [None, 0.0])
def test_a_refusal_without_a_pause_is_given_a_growing_one(clock, patience, pause_s):
    """429 without Retry-After, or with 0, holds back all the same, and ends like any failure."""
    effort = patience.effort("api")
    began = clock.now
    with pytest.raises(HubUnreachable, match="429"):  # noqa: PT012 - the loop is what must end
        for _ in range(1000):
            effort.wait_turn()
            effort.held_back("it answers 429 Too Many Requests", pause_s)

    assert 15 < clock.now - began < 21
    assert len(clock.pauses) < 40


def test_closing_wakes_who_waits():
    """A thread in a pause leaves it at once, and no later call begins one."""
    patience = Patience("hub", 1000.0)
    ended = threading.Event()

    def wait():
        with pytest.raises(HubUnreachable, match="given up"):
            patience.sleep(1000.0)
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    patience.close()
    thread.join(20)

    assert ended.is_set()
    with pytest.raises(HubUnreachable, match="given up"):
        patience.effort("api").wait_turn()
