"""The health probe against real listeners, on unix sockets and loopback ports."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from qrun import engine_health
from qrun.engine_health import health_status, until_healthy
from qrun.runner import Launch, TcpAddress, UnixAddress

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answering(text: bytes, heard: list[bytes] | None = None) -> Answer:
    """A listener that reads the request's head and sends `text`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heard is not None:
            heard.append(head)
        writer.write(text)
        writer.close()

    return answer


async def status_from(answer: Answer, socket: Path) -> int | None:
    """What the probe makes of a listener."""
    async with await asyncio.start_unix_server(answer, socket):
        return await health_status(Launch((), UnixAddress(socket)))


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", 200),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\n\r\n{loading}", 503),
        (b"HTTP/1.0 200\r\n\r\n", 200),
        (b"", None),
        (b"SSH-2.0-OpenSSH_9.6\r\n", None),
        (b"HTTP/1.1 OK\r\n\r\n", None),
        (b"x" * 200_000, None),
    ],
)
def test_status_is_the_listener_s_or_unknown(tmp_path: Path, text: bytes, status: int | None):
    """Only an HTTP status line is an answer; whatever else a listener says is none."""
    assert asyncio.run(status_from(answering(text), tmp_path / "s")) == status


def test_nobody_listening_is_no_answer(tmp_path: Path):
    """No socket yet, a socket file left by a dead engine, and a port nobody has are the same: not yet."""

    async def check() -> list[int | None]:
        (await asyncio.start_unix_server(answering(b""), tmp_path / "stale")).close()
        return [
            await health_status(Launch((), address))
            for address in (
                UnixAddress(tmp_path / "none"),
                UnixAddress(tmp_path / "stale"),
                TcpAddress("127.0.0.1", 1),
            )
        ]

    assert asyncio.run(check()) == [None, None, None]


def test_listener_that_says_nothing_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An engine that accepts and hangs is asked again, not waited for."""
    monkeypatch.setattr(engine_health, "_ANSWER_WITHIN_S", 0.05)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    assert asyncio.run(status_from(silent, tmp_path / "s")) is None


def test_port_is_asked_on_the_launch_s_path_with_its_key():
    """A loopback port is guarded by a key, which the probe has to show."""
    heard: list[bytes] = []

    async def check() -> int | None:
        async with await asyncio.start_server(answering(b"HTTP/1.1 200 OK\r\n\r\n", heard), "127.0.0.1", 0) as server:
            address = TcpAddress(*server.sockets[0].getsockname())
            return await health_status(Launch((), address, api_key="secret", health_path="/up"))

    status = asyncio.run(check())

    assert status == 200
    assert heard[0].startswith(b"GET /up HTTP/1.1\r\n")
    assert b"Authorization: Bearer secret\r\n" in heard[0]


def test_waiting_ends_with_the_first_200(tmp_path: Path):
    """Waiting starts before anyone listens and outlasts every 503."""
    statuses = iter([b"503 Loading", b"503 Loading", b"200 OK"])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(b"HTTP/1.1 " + next(statuses) + b"\r\n\r\n")(reader, writer)

    async def check() -> None:
        waiting = asyncio.create_task(until_healthy(Launch((), UnixAddress(tmp_path / "s"))))
        await asyncio.sleep(0.05)
        async with await asyncio.start_unix_server(answer, tmp_path / "s"):
            await waiting

    asyncio.run(check())

    assert list(statuses) == []
