"""Whether an engine answers, asked of its health path over its unix socket or loopback port.

An engine that starts refuses the connection, then says 503 while it loads, then 200 (DESIGN section 4). Nothing but 200
is an answer here; whether the process still lives is the supervisor's to know.
"""

import asyncio
import contextlib
import time
from http import HTTPStatus

from qrun.runner import Launch, UnixAddress

__all__ = ["health_status", "until_healthy"]

_ANSWER_WITHIN_S = 5.0  # a health path that takes longer is asked again
_PAUSE_SHARE = 0.05  # of the time waited so far: what asking seldom costs a start is never more than that
_SHORTEST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.25


async def until_healthy(launch: Launch) -> None:
    """Return when the health path says 200. Waits for ever: the caller has the limit."""
    began_at = time.monotonic()
    while await health_status(launch) != HTTPStatus.OK:
        waited_s = time.monotonic() - began_at
        await asyncio.sleep(min(max(waited_s * _PAUSE_SHARE, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S))


async def health_status(launch: Launch) -> int | None:
    """The HTTP status of the health path; None where nobody listens, or no HTTP answer came."""
    try:
        async with asyncio.timeout(_ANSWER_WITHIN_S):
            return await _ask(launch)
    except (OSError, ValueError):  # OSError: refused, reset, no socket yet, out of time; ValueError: an endless line
        return None


async def _ask(launch: Launch) -> int | None:
    reader, writer = await _connect(launch)
    try:
        writer.write(_request(launch))
        return _status_of(await reader.readline())
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _connect(launch: Launch) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = launch.address
    if isinstance(address, UnixAddress):
        return await asyncio.open_unix_connection(address.socket)
    return await asyncio.open_connection(address.host, address.port)


def _request(launch: Launch) -> bytes:
    lines = [f"GET {launch.health_path} HTTP/1.1", "Host: localhost", "Connection: close"]
    if launch.api_key is not None:
        lines.append(f"Authorization: Bearer {launch.api_key}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _status_of(line: bytes) -> int | None:
    """The status in `HTTP/1.1 200 OK`."""
    words = line.split()
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit() else None
