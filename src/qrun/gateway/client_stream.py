"""The client's end of a stream: opened with the first bytes, and told apart from the engine's when it breaks."""

from aiohttp import web

__all__ = ["ClientLeft", "ClientStream"]

_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_HEARTBEAT = b": heartbeat\n\n"


class ClientLeft(Exception):
    """The client closed the connection; there is nobody to tell."""


class ClientStream:
    """Server-sent events to one client. Until the first bytes an error can still have a status of its own."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.response = web.StreamResponse(headers=_HEADERS)

    @property
    def is_open(self) -> bool:
        """Whether the client has got the status and headers."""
        return self.response.prepared

    async def send(self, data: bytes) -> None:
        """Send bytes as they are. Raises ClientLeft."""
        try:
            if not self.response.prepared:
                await self.response.prepare(self._request)
            await self.response.write(data)
        except ConnectionResetError as gone:
            raise ClientLeft from gone

    async def heartbeat(self) -> None:
        """Show that the request is alive. SSE readers pass over comments."""
        await self.send(_HEARTBEAT)

    async def end(self) -> web.StreamResponse:
        """End the stream."""
        try:
            await self.response.write_eof()
        except ConnectionResetError as gone:
            raise ClientLeft from gone
        return self.response
