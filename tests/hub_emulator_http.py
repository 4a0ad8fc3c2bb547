"""The sockets of the emulated Hub: HTTP/1.1 with keep-alive, a thread a connection, and faults on the way out."""

import os
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode

from hub_emulator_api import Answer, Request
from hub_emulator_blobs import PIECE_BYTES
from hub_emulator_faults import Fault, Faults

__all__ = ["HubServer", "Seen"]


@dataclass
class Seen:
    """One request as it came (header names in lower case), and what became of it.

    `host`: "hub", or "files" for the host of the LFS files. `sent_bytes`: of the answer's body, given to the socket.
    `status` is 0 where there was no answer. `at_s` is of time.monotonic.
    """

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    host: str
    at_s: float = field(default_factory=time.monotonic)
    status: int = 0
    sent_bytes: int = 0


class HubServer(ThreadingHTTPServer):
    """One listening socket on loopback: the Hub, or the host of its LFS files."""

    daemon_threads = False  # close() joins them: none outlives the emulator
    request_queue_size = 256

    def __init__(
        self,
        host: str,
        port: int,
        *,
        answer: Callable[[Request], Answer],
        moved: Callable[[Fault, Request], None],
        faults: Faults,
        seen: list[Seen],
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.host, self.answer, self.moved, self.faults, self.seen = host, answer, moved, faults, seen
        self.errors: list[BaseException] = []
        self.closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, name=f"hub-{host}")

    @property
    def endpoint(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def start(self) -> None:
        """Answer from now on, in threads of its own."""
        self._thread.start()

    def close(self) -> None:
        """Cut every connection and end every thread."""
        self.closing.set()
        self.shutdown()
        self._thread.join()
        with self._lock:
            for connection in self._open:
                _cut(connection)
        self.server_close()

    def process_request(self, request: socket.socket, client_address: object) -> None:
        """Keep account of the open connections, so that close() can cut them."""
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:
        """The connection is done."""
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - the base class's
        """A fault of the emulator's own: kept for who closes it, since it must fail the test."""
        error = sys.exception()
        assert error is not None
        self.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HubServer

    def handle(self) -> None:
        """Serve one connection until its client leaves, which it may do at any moment."""
        try:
            super().handle()
        except (ConnectionError, BrokenPipeError):
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: `requests` is the log."""

    def do_GET(self) -> None:
        """Answer a GET."""
        self._handle()

    do_HEAD = do_POST = do_GET  # noqa: N815 - the base class's names

    def _handle(self) -> None:
        request = self._request()
        seen = Seen(request.method, request.path, dict(request.query), dict(request.headers), self.server.host)
        self.server.seen.append(seen)
        fault = self.server.faults.take(request.method, request.path, of_body=False)
        if fault is not None and fault.delay_s:
            self.server.closing.wait(fault.delay_s)
        if fault is not None and fault.kind in ("reset", "hang"):
            return self._leave(fault)
        answer = self._answer(request, fault)
        self._send(request, answer, seen)
        return None

    def _answer(self, request: Request, fault: Fault | None) -> Answer:
        if fault is not None and fault.kind in ("status", "redirect", "body"):
            return _answer_of(fault)
        answer = self.server.answer(request)
        if self.server.host == "hub":
            answer.headers |= _limits(request.path)
        if fault is not None and fault.kind == "move":
            self.server.moved(fault, request)
        if fault is not None and fault.kind == "endless":
            query = urlencode({**request.query, "page": str(fault.n_happened)}, doseq=True)
            answer.headers["Link"] = f'<{self.server.endpoint}{request.path}?{query}>; rel="next"'
        return answer

    def _request(self) -> Request:
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", "0")))
        return Request(self.command, path, parse_qs(query, keep_blank_values=True), headers, body)

    def _leave(self, fault: Fault) -> None:
        """Close without an answer: at once with a reset, or after the client has waited in vain."""
        self.close_connection = True
        if fault.kind == "hang":
            self.server.closing.wait(None if fault.delay_s is None else 0)
            return
        # SO_LINGER of no seconds: the kernel sends a reset, not an orderly end.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _send(self, request: Request, answer: Answer, seen: Seen) -> None:
        seen.status = answer.status
        has_body = request.method != "HEAD" and 200 <= answer.status < 300
        fault = self.server.faults.take(request.method, request.path, of_body=True) if has_body else None
        if fault is not None and fault.delay_s:
            self.server.closing.wait(fault.delay_s)
        if fault is not None and fault.kind == "no_range" and answer.blob is not None and answer.status == 206:
            seen.status = answer.status = 200
            answer.headers.pop("Content-Range")
            answer.start, answer.stop = 0, answer.blob.size_bytes
        if answer.headers.get("Content-Encoding") == "gzip":
            return self._send_gzipped(answer, seen, fault)
        size = answer.stop - answer.start if answer.blob is not None else len(answer.body)
        self.connection.sendall(_head(answer, {"Content-Length": str(size)}))
        if request.method == "HEAD":
            return None
        if answer.blob is None:
            return self._send_pieces([memoryview(answer.body)], seen, fault)
        if fault is None and answer.blob.source is not None:
            return self._send_file(answer, seen)
        return self._send_pieces(answer.blob.pieces(answer.start, answer.stop), seen, fault)

    def _send_gzipped(self, answer: Answer, seen: Seen, fault: Fault | None) -> None:
        assert answer.blob is not None
        packed = zlib.compressobj(wbits=31)
        data = packed.compress(answer.blob.read()) + packed.flush()
        self.connection.sendall(_head(answer, {"Transfer-Encoding": "chunked"}))
        framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
        self._send_pieces([memoryview(framed)], seen, fault)

    def _send_file(self, answer: Answer, seen: Seen) -> None:
        """Straight from the page cache: eight parallel ranges must not wait for each other in Python."""
        assert answer.blob is not None
        assert answer.blob.source is not None
        with answer.blob.source.open("rb", buffering=0) as file:
            offset = answer.start
            while offset < answer.stop:
                n_bytes = min(PIECE_BYTES, answer.stop - offset)
                seen.sent_bytes += n_bytes
                sent = 0
                try:
                    sent = os.sendfile(self.connection.fileno(), file.fileno(), offset, n_bytes)
                finally:
                    seen.sent_bytes -= n_bytes - sent
                if not sent:
                    raise OSError(f"{answer.blob.source} became shorter while it was sent")
                offset += sent

    def _send_pieces(self, pieces: Iterable[memoryview], seen: Seen, fault: Fault | None) -> None:
        n_sent = 0
        for piece in pieces:
            data, ends = _spoilt(piece, n_sent, fault)
            seen.sent_bytes += len(data)  # before it is sent: who has read it all finds it counted
            try:
                self._send_at_rate(data, fault)
            except OSError:
                seen.sent_bytes -= len(data)
                raise
            n_sent += len(data)
            if ends:
                self.close_connection = True
                return

    def _send_at_rate(self, data: memoryview, fault: Fault | None) -> None:
        if fault is None or not fault.bytes_per_s:
            self.connection.sendall(data)
            return
        step = max(1, int(fault.bytes_per_s / 20))
        for start in range(0, len(data), step):
            part = data[start : start + step]
            self.connection.sendall(part)
            if self.server.closing.wait(len(part) / fault.bytes_per_s):
                raise ConnectionAbortedError


def _spoilt(piece: memoryview, n_before: int, fault: Fault | None) -> tuple[memoryview, bool]:
    """The piece as the fault leaves it, and whether the connection ends after it."""
    if fault is None or fault.kind not in ("cut", "corrupt"):
        return piece, False
    at = (fault.after_bytes or 0) - n_before
    if fault.kind == "cut":
        return (piece[: max(0, at)], True) if at < len(piece) else (piece, False)
    if not 0 <= at < len(piece):
        return piece, False
    changed = bytearray(piece)
    changed[at] ^= 0xFF
    return memoryview(changed), False


def _answer_of(fault: Fault) -> Answer:
    headers = dict(fault.headers)
    if fault.retry_after is not None:
        headers["Retry-After"] = f"{fault.retry_after:g}"
    if fault.kind == "redirect":
        assert fault.location is not None
        return Answer(fault.status or 302, headers | {"Location": fault.location})
    if fault.kind == "body":
        return Answer(fault.status or 200, {"Content-Type": "text/html"} | headers, fault.body or b"")
    status = fault.status or 503
    text = HTTPStatus(status).phrase
    return Answer(status, {"Content-Type": "text/plain"} | headers, fault.body or text.encode())


def _limits(path: str) -> dict[str, str]:
    """What the Hub tells with every answer: how many more it gives. Here always enough; a fault may say otherwise."""
    kind, most = ("resolvers", 3000) if "/resolve" in path else ("api", 500)
    return {"RateLimit": f'"{kind}";r={most - 1};t=300', "RateLimit-Policy": f'"fixed window";"{kind}";q={most};w=300'}


def _head(answer: Answer, more: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in ({"X-Request-Id": "Root=emulator"} | answer.headers | more).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", errors="replace")


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # its client was faster
