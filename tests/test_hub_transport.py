"""Requests outlast the Hub's bad moments, tell them from refusals, and take the token nowhere else."""

import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest

from hub_emulator import HubEmulator
from qrun import hub_transport
from qrun.hub_client import HubClient
from qrun.hub_errors import AccessDenied, HubUnreachable, RangesIgnored
from qrun.hub_patience import Effort
from qrun.hub_settings import HubSettings
from qrun.hub_transport import HubTransport

WEIGHTS = bytes(range(251)) * 12_000
N_BYTES = len(WEIGHTS)


@pytest.fixture
def settings(tmp_path, hub):
    return HubSettings(
        cache_dir=tmp_path / "hub",
        listings_dir=tmp_path / "listings",
        token_path=tmp_path / "token",
        endpoint=hub.endpoint,
        retry_s=20.0,
    )


@pytest.fixture
def client(settings):
    made = HubClient(settings)
    yield made
    made.close()


@pytest.fixture
def impatient(settings):
    """A client that gives up soon, for what never heals."""
    made = HubClient(replace(settings, retry_s=0.4))
    yield made
    made.close()


@pytest.fixture
def commit(hub):
    return hub.add_repo("maker/base", {"base.gguf": WEIGHTS, "config.json": b"{}"})


def ranged(client, commit, start=0, stop=N_BYTES):
    with client.ranged("maker/base", commit, "base.gguf", start, stop) as pieces:
        return b"".join(pieces)


def statuses(hub, path):
    return [request.status for request in hub.requests if request.path.startswith(path)]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_bad_moment_of_the_api_is_waited_out(hub, client, commit, status):
    """Two errors and then an answer is an answer."""
    hub.fault("status", status=status, times=2)

    assert client.repo("maker/base").commit == commit
    assert statuses(hub, "/api/") == [status, status, 200]
    assert client.n_calls == 3


@pytest.mark.parametrize("kind", ["reset", "cut"])
def test_a_connection_that_breaks_is_made_again(hub, client, commit, kind):
    """Before the answer or in the middle of it: huggingface_hub lets either through as a traceback."""
    hub.fault(kind, after_bytes=10, times=2)

    assert client.repo("maker/base").commit == commit
    assert client.n_calls == 3


def test_a_hub_that_does_not_answer_is_asked_again(hub, client, commit, monkeypatch):
    """A request that hangs ends by its timeout, and the next may work."""
    monkeypatch.setattr(hub_transport, "_READ_S", {"api": 0.2, "file": 0.2})
    hub.fault("hang", times=2)

    assert client.repo("maker/base").commit == commit


def test_an_answer_that_comes_drop_by_drop_is_broken(hub, impatient, commit, monkeypatch):
    """Each piece in time, and yet no end: the whole answer has a least rate."""
    monkeypatch.setattr(hub_transport, "_DRIP_S", 0.2)
    hub.fault("slow", bytes_per_s=100)

    with pytest.raises(HubUnreachable, match=r"\d+ bytes in 0 s"):
        impatient.repo("maker/base")


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_errors_without_end_are_exit_5_after_the_time(hub, impatient, commit, status):
    """The message has the Hub's address, its answer, and how often it was asked."""
    hub.fault("status", status=status)

    with pytest.raises(HubUnreachable, match=rf"it answers {status} .+ \(\d tries in 0 s\)") as error:
        impatient.repo("maker/base")

    assert hub.endpoint in str(error.value)
    assert "HF_ENDPOINT" in str(error.value)
    assert 1 < impatient.n_calls < 6


def test_a_hub_that_is_not_there_is_exit_5(settings):
    """A refused connection is told as what it is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
        client = HubClient(replace(settings, endpoint=endpoint, retry_s=0.3))
        with pytest.raises(HubUnreachable, match=r"reached: Connection refused \(\d tries in 0 s\)"):
            client.models(search="base")
        n_before = client.n_calls
        with pytest.raises(HubUnreachable, match="1 try"):
            client.repo("maker/base")
    client.close()

    assert client.n_calls == n_before + 1


@pytest.mark.parametrize("endpoint", ["hub.example", "ftp://127.0.0.1/x", "http://", "https://127.0.0.1:x"])
def test_an_endpoint_that_is_no_address_is_said_at_once(settings, endpoint):
    """No time heals it: one line that names HF_ENDPOINT."""
    client = HubClient(replace(settings, endpoint=endpoint, retry_s=1000.0))

    with pytest.raises(HubUnreachable, match="HF_ENDPOINT"):
        client.repo("a/b")
    client.close()


def test_a_certificate_that_is_not_trusted_is_said_at_once(settings, monkeypatch):
    """Trying again for 20 s would help nobody."""

    def refuse(self, request, **_options):
        raise httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate", request=request)

    monkeypatch.setattr(httpx2.Client, "send", refuse)
    client = HubClient(replace(settings, retry_s=1000.0))

    with pytest.raises(HubUnreachable, match=r"CERTIFICATE_VERIFY_FAILED.*SSL_CERT_FILE"):
        client.repo("a/b")
    client.close()


@pytest.mark.parametrize("status", [429, 503])
def test_a_pause_holds_back_the_whole_api_and_no_file(hub, client, commit, status):
    """While one call's Retry-After runs, no other call is sent, and files are read."""
    hub.fault("status", status=status, retry_after=1, path="^/api/", times=1)
    began = threading.Event()

    def first():
        began.set()
        return client.repo("maker/base")

    def file():
        began.wait(20)
        return client.small_file("maker/base", commit, "config.json", most_bytes=10)

    client.together([first, *[lambda: client.repo("no/such")] * 4, file])
    api = [request for request in hub.requests if request.path.startswith("/api/")]

    refused = next(request for request in api if request.status == status)
    after = [request for request in api if request.at_s > refused.at_s + 0.2]
    assert len(after) >= 1
    assert all(request.at_s >= refused.at_s + 0.9 for request in after)
    assert statuses(hub, "/maker/base/resolve") == [200]


def test_a_pause_of_files_holds_back_files_and_not_the_api(hub, impatient, commit):
    """The two are counted apart."""
    hub.fault("status", status=429, retry_after=100, path="/resolve/", times=1)

    with pytest.raises(HubUnreachable, match="pause of 100 s"):
        impatient.small_file("maker/base", commit, "config.json", most_bytes=10)
    with pytest.raises(HubUnreachable, match=r"pause of \d+ s"):
        ranged(impatient, commit)

    assert statuses(hub, "/maker/base/resolve") == [429]
    assert impatient.repo("maker/base").commit == commit


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "250"},
        {"RateLimit": '"api";r=0;t=250', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'},
    ],
)
def test_a_pause_is_read_however_the_hub_writes_it(hub, impatient, commit, headers):
    """Seconds, or the reset of its rate limit: a pause too long is exit 5 at once, with the way to a higher limit."""
    hub.fault("status", status=429, headers=headers)

    with pytest.raises(HubUnreachable, match=r"pause of 2(50|49) s.*hf auth login"):
        impatient.repo("maker/base")

    assert impatient.n_calls == 1


def test_a_pause_until_a_date_is_read_too(hub, impatient, commit):
    """Retry-After may be a date of HTTP."""
    hub.fault("status", status=503, headers={"Retry-After": formatdate(time.time() + 250, usegmt=True)})

    with pytest.raises(HubUnreachable, match=r"pause of 2(50|4\d) s"):
        impatient.repo("maker/base")


def test_a_pause_that_is_none_is_taken_as_any_failure(hub, client, commit):
    """A Retry-After that cannot be read does not stop the trying."""
    hub.fault("status", status=503, headers={"Retry-After": "soon"}, times=1)

    assert client.repo("maker/base").commit == commit


def test_the_token_goes_to_no_other_host(hub, settings):
    """The storage that files come from, and wherever else a redirect leads, never sees it."""
    commit = hub.add_repo("maker/private", {"a.gguf": WEIGHTS, "config.json": b"{}"}, private=True, token="hf_secret")
    client = HubClient(replace(settings, token="hf_secret"))
    with HubEmulator() as stranger:
        hub.fault("redirect", location=f"{stranger.endpoint}/api/models/maker/private", path="/api/", times=1)
        hub.fault("redirect", location=f"{stranger.endpoint}/config", path="config.json$", times=1)
        assert client.repo("maker/private") is None
        assert client.small_file("maker/private", commit, "config.json", most_bytes=9) is None
        for _ in range(2):  # the second goes to the storage at once
            with client.ranged("maker/private", commit, "a.gguf", 0, 9) as pieces:
                assert b"".join(pieces) == WEIGHTS[:9]
    client.close()

    storage = [request for request in hub.requests if request.path.startswith("/cdn/")]
    assert len(stranger.requests) == 2
    assert len(storage) == 2
    for request in [*stranger.requests, *storage]:
        assert "authorization" not in request.headers
        assert "hf_secret" not in str(request)
    hubs_own = [request for request in hub.requests if request not in storage]
    assert {request.headers["authorization"] for request in hubs_own} == {"Bearer hf_secret"}


@pytest.mark.parametrize(
    ("location", "words"),
    [("/api/models/maker/base", "in a circle"), ("file:///etc/passwd", "no address"), ("http://a:b/", "no address")],
)
def test_redirects_to_nowhere_are_exit_5_at_once(hub, client, commit, location, words):
    """Circles and addresses that are none are told, not followed."""
    hub.fault("redirect", location=location, path="/api/")

    with pytest.raises(HubUnreachable, match=words):
        client.repo("maker/base")


def test_no_redirect_leads_from_https_to_http(monkeypatch):
    """What began encrypted does not go on in the clear."""

    def answer(self, request, **_options):
        response = httpx2.Response(302, headers={"Location": "http://elsewhere.example/"}, request=request)
        response.next_request = httpx2.Request("GET", "http://elsewhere.example/")
        return response

    monkeypatch.setattr(httpx2.Client, "send", answer)
    transport = HubTransport("https://hub.example", retry_s=0, headers={})

    with pytest.raises(HubUnreachable, match=r"elsewhere\.example without encryption"):
        transport.get("api", "https://hub.example/api/models", most_bytes=10)
    transport.close()


def test_a_range_comes_through_the_redirect_exactly(hub, client, commit):
    """The bytes [start, stop), whatever pieces they come in."""
    assert ranged(client, commit, 100, 2_000_000) == WEIGHTS[100:2_000_000]
    assert ranged(client, commit) == WEIGHTS
    assert ranged(client, commit, N_BYTES - 5, N_BYTES + 100) == WEIGHTS[-5:]
    assert ranged(client, commit, N_BYTES, N_BYTES + 1) == b""
    assert ranged(client, commit, 5, 5) == b""


@pytest.mark.parametrize("after_bytes", [0, 1, 100_000])
def test_a_download_goes_on_where_it_broke(hub, client, commit, after_bytes):
    """Cuts cost no byte twice: each new request begins at the first byte that is missing."""
    hub.fault("cut", path="^/cdn/", after_bytes=after_bytes, times=3)

    assert ranged(client, commit, 7) == WEIGHTS[7:]
    begins = [request.headers["range"] for request in hub.requests if request.path.startswith("/cdn/")]
    assert len(begins) == 4
    sent = sum(request.sent_bytes for request in hub.requests if request.path.startswith("/cdn/"))
    assert sent == N_BYTES - 7


def test_a_download_that_breaks_for_ever_is_exit_5(hub, impatient, commit):
    """A storage that sends nothing any more has the time given, counted from its last byte."""
    hub.fault("cut", path="^/cdn/", after_bytes=1000, times=1)
    hub.fault("reset", path="^/cdn/")

    with pytest.raises(HubUnreachable, match=r"\d tries in 0 s"):
        ranged(impatient, commit)


def test_a_link_that_ran_out_is_asked_for_anew(hub, client, commit):
    """Signed links expire in the middle of long downloads: the resolve route gives a new one."""
    hub.fault("cut", path="^/cdn/", after_bytes=1000, times=1)
    hub.fault("status", status=403, path="^/cdn/", times=1)

    assert ranged(client, commit) == WEIGHTS
    assert statuses(hub, "/maker/base/resolve") == [302, 302, 302]


def test_many_ranges_of_a_file_ask_the_hub_once(hub, client, commit):
    """The storage's address is used again: the Hub counts requests for files, 3,000 in 5 minutes."""
    parts = [ranged(client, commit, start, start + 9) for start in range(0, 90, 9)]

    assert b"".join(parts) == WEIGHTS[:90]
    assert statuses(hub, "/maker/base/resolve") == [302]
    assert statuses(hub, "/cdn/") == [206] * 10


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_a_remembered_address_that_serves_no_longer_is_asked_for_anew(hub, client, commit, monkeypatch, status):
    """At once and without a pause: that a link ran out is no failure of the Hub."""
    ranged(client, commit, 0, 9)
    hub.fault("status", status=status, path="^/cdn/", times=1)
    monkeypatch.setattr(Effort, "failed", lambda _, why: pytest.fail(f"counted as a failure: {why}"))

    assert ranged(client, commit) == WEIGHTS
    assert statuses(hub, "/maker/base/resolve") == [302, 302]
    assert statuses(hub, "/cdn/") == [206, status, 206]


def test_a_remembered_address_that_is_gone_is_asked_for_anew(hub, client, commit):
    """A connection to it that breaks counts as any, and the next try asks the Hub where the file is now."""
    ranged(client, commit, 0, 9)
    hub.fault("reset", path="^/cdn/", times=1)

    assert ranged(client, commit) == WEIGHTS
    assert statuses(hub, "/maker/base/resolve") == [302, 302]


def test_an_address_is_remembered_for_a_while_only(hub, client, commit, monkeypatch):
    """Who lost access to a repo does not go on reading it for ever."""
    monkeypatch.setattr(hub_transport, "_LINK_S", 0.0)
    for start in (0, 9, 18):
        ranged(client, commit, start, start + 9)

    assert statuses(hub, "/maker/base/resolve") == [302, 302, 302]


def test_a_file_that_was_removed_since_the_decision_is_no_matter_of_the_connection(client, commit):
    """The way out is a new decision: the kept one names bytes that the Hub has no more."""
    with pytest.raises(HubUnreachable, match=r"answers 404 .+ --refresh decides anew"):
        ranged(client, "0" * len(commit))


def test_a_storage_that_is_not_there_is_named(hub, impatient, commit):
    """Where a redirect leads to a host that does not answer, the message says which."""
    hub.fault("redirect", location="http://storage.invalid/base.gguf", path="/resolve/")

    with pytest.raises(HubUnreachable, match=r"reached: storage\.invalid: .+ \(\d tr"):
        ranged(impatient, commit)


def test_a_storage_that_refuses_for_ever_is_exit_5_not_6(hub, impatient, commit):
    """Its 403 says nothing of gates."""
    hub.fault("status", status=403, path="^/cdn/")

    with pytest.raises(HubUnreachable, match="its storage answers 403 Forbidden"):
        ranged(impatient, commit)
    with pytest.raises(HubUnreachable, match="its storage answers 403"):
        impatient.small_file("maker/base", commit, "base.gguf", most_bytes=10)


def test_a_gate_is_a_gate_under_a_repos_old_name_too(hub, client):
    """The Hub's own refusal after a redirect is not taken for its storage's."""
    commit = hub.add_repo("maker/gated", {"base.gguf": b"abc"}, gated="manual", token="hf_other")
    hub.add_alias("maker/old", "maker/gated")

    with client.ranged("maker/old", commit, "base.gguf", 0, 3) as pieces, pytest.raises(AccessDenied):
        next(pieces)


def test_a_file_that_is_gone_is_exit_5_and_names_it(hub, client, commit):
    """Between listing and download a file may go; that is the Hub's fault, not a short file."""
    with (
        client.ranged("maker/base", commit, "gone.gguf", 0, 3) as pieces,
        pytest.raises(HubUnreachable, match=r"404 Not Found to /maker/base/resolve/.+/gone\.gguf"),
    ):
        next(pieces)


def test_a_server_that_ignores_ranges_is_told_from_one_that_obeys(hub, client, commit):
    """From byte 0 such a server can be read; from anywhere else the reader must know."""
    hub.fault("no_range", path="^/cdn/")

    assert ranged(client, commit, 0, 1000) == WEIGHTS[:1000]
    with pytest.raises(RangesIgnored):
        ranged(client, commit, 10, 1000)


class _Sparing(BaseHTTPRequestHandler):
    """A server that gives at most `most` bytes of "0123456789" at a time."""

    protocol_version = "HTTP/1.1"
    most = 3
    n_connections = 0

    def setup(self):
        """Called once a connection."""
        type(self).n_connections += 1
        super().setup()

    def do_GET(self):
        """A part that is shorter than asked for, and says so."""
        start = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
        body = b"0123456789"[start : start + self.most]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/10")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):  # noqa: A002 - the base class's name
        """Nothing."""


@pytest.fixture
def sparing(monkeypatch):
    """The endpoint of a server that gives little at a time, and a transport to it."""
    monkeypatch.setattr(_Sparing, "most", 3)
    monkeypatch.setattr(_Sparing, "n_connections", 0)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Sparing) as server:
        threading.Thread(target=server.serve_forever).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        transport = HubTransport(endpoint, retry_s=0.3, headers={})
        yield endpoint, transport
        transport.close()
        server.shutdown()


def test_parts_that_are_shorter_than_asked_for_are_put_together(sparing):
    """A proxy may give less at a time."""
    endpoint, transport = sparing

    assert b"".join(transport.stream(f"{endpoint}/x", 0, 20, pytest.fail)) == b"0123456789"


def test_a_part_without_content_is_no_end_of_the_file(sparing, monkeypatch):
    """What gives nothing at all is tried again, and then exit 5."""
    monkeypatch.setattr(_Sparing, "most", 0)
    endpoint, transport = sparing

    with pytest.raises(HubUnreachable, match="an answer without content"):
        list(transport.stream(f"{endpoint}/x", 0, 20, pytest.fail))


def test_parts_one_after_another_use_one_connection(sparing):
    """A file in many parts costs one handshake, not one a part."""
    endpoint, transport = sparing
    for start in range(0, 9, 3):
        assert b"".join(transport.stream(f"{endpoint}/x", start, start + 3, pytest.fail)) == b"0123456789"[start:][:3]

    assert _Sparing.n_connections == 1


def test_leaving_a_download_ends_its_request(settings):
    """The rest of a file that nobody reads is not sent."""
    with HubEmulator() as hub:
        commit = hub.add_repo("maker/base", {"base.gguf": WEIGHTS * 10})
        hub.fault("slow", path="^/cdn/", bytes_per_s=10_000_000)
        client = HubClient(replace(settings, endpoint=hub.endpoint))
        with client.ranged("maker/base", commit, "base.gguf", 0, N_BYTES * 10) as pieces:
            first = next(pieces)
        client.close()

    assert WEIGHTS.startswith(first)
    assert hub.requests[-1].path.startswith("/cdn/")
    assert hub.requests[-1].sent_bytes < N_BYTES * 10


def test_closing_ends_the_waiting_of_other_threads(hub, client, commit):
    """A download that waits for a dead Hub in another thread ends when the session does."""
    hub.fault("status", status=500)
    errors = []

    def wait():
        try:
            client.repo("maker/base")
        except HubUnreachable as error:
            errors.append(error.why)

    waiting = threading.Thread(target=wait)
    waiting.start()
    while not hub.requests:
        waiting.join(0.01)
    client.close()
    waiting.join(10)

    assert errors == ["the request was given up"]
    with pytest.raises(HubUnreachable, match="given up"):
        client.repo("maker/base")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_ctrl_c_ends_the_process_in_the_middle_of_a_pause(hub, settings):
    """Nobody waits for the Hub against their will."""
    hub.fault("status", status=500)
    fields = ("cache_dir", "listings_dir", "token_path")
    paths = ", ".join(f"{name}=Path({str(getattr(settings, name))!r})" for name in fields)
    script = (
        "from pathlib import Path\n"
        "from qrun.hub_client import HubClient\n"
        "from qrun.hub_settings import HubSettings\n"
        f"client = HubClient(HubSettings({paths}, endpoint={settings.endpoint!r}, retry_s=1000))\n"
        "client.together([lambda: client.repo('a/b'), lambda: client.repo('a/c')])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    while len(hub.requests) < 4 and process.poll() is None:
        threading.Event().wait(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
