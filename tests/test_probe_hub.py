"""Whether the Hub answers: asked of real servers on loopback, and of addresses where nobody is."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from qrun.probe_hub import HubAnswer, reach_hub


@contextmanager
def server(status: int, seen: list[str] | None = None) -> Iterator[str]:
    """A server on loopback that says `status` to every HEAD; `seen` gets what was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            if seen is not None:
                seen.append(f"{self.command} {self.path}")
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}"
        finally:
            httpd.shutdown()
            thread.join()


@contextmanager
def listener() -> Iterator[tuple[socket.socket, str]]:
    """A socket that accepts connections into its queue and never answers by itself."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening, f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("status", [200, 302, 404, 503])
def test_any_answer_is_an_answer(status):
    """Its status is told as it came; a redirect is not followed."""
    with server(status) as address:
        assert reach_hub(address, {}) == HubAnswer(address, status)


def test_only_the_head_is_asked_for():
    """One small request, without a body."""
    seen: list[str] = []
    with server(200, seen) as address:
        reach_hub(address, {})

    assert seen == ["HEAD /"]


def test_a_proxy_of_the_environment_is_used():
    """Behind a proxy the Hub is reached through it."""
    seen: list[str] = []
    with server(200, seen) as proxy:
        answer = reach_hub("http://hub.invalid", {"http_proxy": proxy})

    assert answer.status == 200
    assert seen == ["HEAD http://hub.invalid"]


def test_a_closed_port_is_told_with_its_reason():
    """Nobody there: the reason is the system's own."""
    with listener() as (_, address):
        pass

    answer = reach_hub(address, {})

    assert answer.status is None
    assert "refused" in answer.why_not


def test_silence_ends_with_the_timeout():
    """A server that accepts and never answers does not hold the doctor up."""
    with listener() as (_, address):
        answer = reach_hub(address, {}, timeout_s=0.2)

    assert answer.status is None
    assert "timed out" in answer.why_not or "no answer" in answer.why_not


def test_a_server_that_speaks_no_http_is_told_of():
    """An address may belong to something else."""
    with listener() as (listening, address):

        def speak() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=speak)
        thread.start()
        answer = reach_hub(address, {})
        thread.join()

    assert answer.status is None
    assert "no HTTP server" in answer.why_not


@pytest.mark.parametrize("address", ["hub.example", "ftp://hub.example", "file:///etc/passwd", "http://", "http://a b"])
def test_what_is_no_web_address_is_told_of(address):
    """A wrong HF_ENDPOINT is a reason, not a crash, and opens no file."""
    answer = reach_hub(address, {})

    assert answer.status is None
    assert answer.why_not
