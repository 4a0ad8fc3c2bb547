"""A download beside the event loop: its result and its errors arrive, and cancelling it breaks it off."""

import asyncio
import threading
from pathlib import Path

import pytest

from qrun.hub_errors import DiskFull
from qrun.model_fetch import ModelFetch
from qrun.source import Advance

PIECE = Advance("org/repo", "m.gguf", 1, 2)


def test_the_path_is_known_when_the_download_is_over():
    """Reports reach the caller's own, from the thread of the download."""
    told = []

    def fetch(report):
        report(PIECE)
        return Path("there")

    fetching = ModelFetch(fetch, told.append)
    with pytest.raises(RuntimeError):
        _ = fetching.path
    asyncio.run(fetching.run_beside())

    assert fetching.path == Path("there")
    assert told == [PIECE]


def test_it_is_fetched_once():
    """An engine that is started again needs no second download."""
    calls = []
    fetching = ModelFetch(lambda _: calls.append(1) or Path("there"))

    fetching.run()
    asyncio.run(fetching.run_beside())

    assert calls == [1]


def test_a_refusal_of_the_source_is_raised_to_who_waits():
    """A full disk is the same error, whoever fetched."""

    def fetch(report):
        raise DiskFull("/cache")

    with pytest.raises(DiskFull):
        asyncio.run(ModelFetch(fetch).run_beside())


def test_the_event_loop_goes_on_while_bytes_arrive():
    """Clients are answered during the download."""
    go = threading.Event()

    def fetch(report):
        assert go.wait(10)
        return Path("there")

    async def both():
        fetching = ModelFetch(fetch)
        task = asyncio.create_task(fetching.run_beside())
        await asyncio.sleep(0)
        go.set()
        await task
        return fetching.path

    assert asyncio.run(both()) == Path("there")


def test_cancelled_it_is_broken_off_at_its_next_report():
    """Ctrl-C ends the download: the fetching thread is stopped by its own report, and leaves."""
    started, left = threading.Event(), threading.Event()

    def fetch(report):
        try:
            while True:
                report(PIECE)
                started.set()
        finally:
            left.set()

    async def cancel():
        task = asyncio.create_task(ModelFetch(fetch).run_beside())
        await asyncio.to_thread(started.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())

    assert left.is_set()
