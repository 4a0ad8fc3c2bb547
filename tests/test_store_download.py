import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qrun.store_download import UNSETTLED_BYTES, Remote, Transfers, TransfersEnded
from qrun.store_layout import RepoLayout
from qrun.store_partial import Partial, PartialClosed

MIB = 2**20
KEYS = ("ab" * 32, "cd" * 32)
SIZE = 3 * UNSETTLED_BYTES // 2


class HeldHub:
    """Notes what is asked for, and sends zeros once it may."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, int]] = []
        self.may_send = threading.Event()

    @contextmanager
    def ranged(self, _repo_id: str, _commit: str, path: str, start: int, stop: int) -> Iterator[Iterator[bytes]]:
        """The bytes of a range, when they may go."""
        self.asked.append((path, start, stop))
        self.may_send.wait()
        yield (bytes(min(MIB, stop - at)) for at in range(start, stop, MIB))

    @property
    def asked_bytes(self) -> int:
        """All that was asked for."""
        return sum(stop - start for _, start, stop in self.asked)


def wait_until(holds: Callable[[], bool]) -> None:
    """Poll, with a deadline."""
    ends = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.002)


@pytest.fixture
def hub() -> Iterator[HeldHub]:
    """A Hub that keeps its readers waiting until the test says so, or ends."""
    held = HeldHub()
    yield held
    held.may_send.set()


@pytest.fixture
def transfers(hub: HeldHub) -> Iterator[Transfers]:
    """Readers of it."""
    made = Transfers(hub)
    made.start()
    yield made
    made.end()


@pytest.fixture
def partials(tmp_path: Path) -> Iterator[list[Partial]]:
    """Two files on their way, each larger than the budget."""
    layout = RepoLayout(tmp_path, "org/model")
    layout.blobs.mkdir(parents=True)
    made = [Partial(layout, key, SIZE) for key in KEYS]
    yield made
    for partial in made:
        partial.close()


def test_no_more_is_asked_for_than_the_budget_until_it_stands_in_the_journal(
    hub: HeldHub, transfers: Transfers, partials: list[Partial]
):
    """Over two files: what is on its way, and what came and is not settled, stays within 16 MiB in all."""
    for number, partial in enumerate(partials):
        transfers.add(Remote("org/model", "0" * 40, f"{number}.gguf", KEYS[number], SIZE), partial)
    wait_until(lambda: hub.asked_bytes == UNSETTLED_BYTES)
    hub.may_send.set()
    wait_until(lambda: sum(partial.done_bytes for partial in partials) == UNSETTLED_BYTES)
    assert sum(partial.unsettled_bytes for partial in partials) == UNSETTLED_BYTES
    assert hub.asked_bytes == UNSETTLED_BYTES  # all came, none is settled: nothing more is asked for
    settled_bytes = 0
    while hub.asked_bytes < 2 * SIZE:
        for partial in partials:
            partial.settle_soon()
            settled_bytes += partial.settle()
        transfers.settled()
        time.sleep(0.002)
        assert hub.asked_bytes <= settled_bytes + UNSETTLED_BYTES

    assert hub.asked_bytes == 2 * SIZE
    assert len(set(hub.asked)) == len(hub.asked)


def test_piece_that_comes_after_the_end_is_not_written(hub: HeldHub, transfers: Transfers, partials: list[Partial]):
    """A reader that hung in the network touches no file that was closed, which another process may hold by now."""
    transfers.add(Remote("org/model", "0" * 40, "a.gguf", KEYS[0], SIZE), partials[0])
    wait_until(lambda: bool(hub.asked))
    transfers.end()
    partials[0].close()
    hub.may_send.set()
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("store-reader")])

    assert transfers.failure is None
    with pytest.raises(TransfersEnded):
        transfers.check()
    with pytest.raises(PartialClosed):
        partials[0].write(0, b"x")


def test_first_failure_is_the_one_that_is_told(transfers: Transfers):
    """What follows from it, in other threads, is no news."""
    first = ValueError("first")
    transfers.fail(first)
    transfers.fail(ValueError("second"))

    assert transfers.failure is first
