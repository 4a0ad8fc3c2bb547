"""Requests to the Hub: one session, redirects hop by hop, and answers or HubUnreachable.

The session is our own, not huggingface_hub's. That one belongs to the whole process: `set_client_factory` closes the
one in use, and the library's retry loops close it at the first refused connection, under other threads' downloads.
They would also wait on top of ours, and its `build_hf_headers` asks the Hub for a list of agents before anything else.
The library gives what is a rule (where the token lies, how rate limits are written); the waiting is `hub_patience`'s.

Redirects are followed here: httpx2 takes the token off a request that leaves its origin, and none leads from https to
http. Where the Hub sent us for a file is remembered for a while: a download of many ranges would else spend the Hub's
limit of file requests (3,000 in 5 minutes without a login, huggingface.co/docs/hub/rate-limits) on redirects alone.
No exception of the HTTP library leaves this module. It imports httpx2 (0.1 s): load it when asking.
"""

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import responses

import httpx2
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined] # public, but without __all__

from qrun.hub_answers import Reply
from qrun.hub_errors import HubUnreachable, RangesIgnored
from qrun.hub_patience import Effort, Kind, Patience

__all__ = ["HubTransport"]

_CONNECT_S = 10.0  # huggingface_hub's own default for all timeouts
_READ_S: Mapping[Kind, float] = {"api": 20.0, "file": 10.0}  # between two pieces; the Hub thinks long over listings
_LEAST_TIMEOUT_S = 2.0  # of a last try: a living Hub on a slow line answers within it
_DRIP_S, _DRIP_BYTES_PER_S = 30.0, 4096  # an answer that is to be read whole and is slower than this is broken
_MOST_REDIRECTS = 10
_MOST_REFUSAL_BYTES = 65536
_LINK_S = 300.0  # how long a signed address is used again; they are good for an hour
_LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=32)
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_FOR_ANYBODY = ("User-Agent", "Range", "Accept", "Accept-Encoding")  # of a request's headers, what a storage may see


class HubTransport:
    """One session with the Hub, for any number of threads. `headers` go with every request that stays with the Hub."""

    def __init__(self, name: str, *, retry_s: float, headers: Mapping[str, str]) -> None:
        """`name` stands for the Hub in messages."""
        self._name = name
        self._patience = Patience(name, retry_s)
        self._client = httpx2.Client(limits=_LIMITS, headers=dict(headers))
        self._lock = threading.Lock()
        self._links: dict[httpx2.URL, tuple[httpx2.URL, float]] = {}  # the Hub's address -> its storage's, until when
        self.n_requests: dict[Kind, int] = {"api": 0, "file": 0}

    def get(
        self,
        kind: Kind,
        url: str,
        *,
        params: Mapping[str, str | list[str]] | None = None,
        headers: Mapping[str, str] | None = None,
        most_bytes: int,
    ) -> Reply:
        """The whole answer to a GET, whatever its status; a longer body is cut one byte above `most_bytes`.

        Raises HubUnreachable.
        """
        request = self._request(url, params=params, headers=headers)
        effort = self._patience.effort(kind)
        while True:
            try:
                with self._opened(effort, kind, request) as response:
                    body = _bounded(response, most_bytes)
            except httpx2.RequestError as error:
                self._once_more(effort, error)
                continue
            effort.succeeded()
            next_page = response.links.get("next", {}).get("url")
            return Reply(response.status_code, response.headers, body, next_page, _is_storage(response, request))

    def stream(self, url: str, start: int, stop: int, refuse: Callable[[Reply], None]) -> Generator[bytes]:
        """The bytes [start, stop) of a file as they come; fewer where the file ends before.

        A connection that breaks goes on from the last byte that came, and a signed link that ran out is asked for
        anew. `refuse` is given an answer that is no content, and raises what it means. Raises HubUnreachable, and
        RangesIgnored where the server cannot begin at `start`.
        """
        effort = self._patience.effort("file")
        at = start
        while (asked := at) < stop:
            request = self._request(url, headers={"Range": f"bytes={at}-{stop - 1}", "Accept-Encoding": "identity"})
            try:
                with self._opened(effort, "file", request) as response:
                    if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                        return  # the file ends before `at`
                    if response.is_success:
                        for piece in self._pieces(response, at, stop):
                            at += len(piece)
                            yield piece
                            effort.succeeded()  # only now: the reader's own time does not count
                        if at >= min(stop, _size(response)):
                            return
                        if at > asked:  # it gives less at a time than was asked for
                            continue
                        raise httpx2.RemoteProtocolError("an answer without content", request=request)
                    refusal = _refusal(response, request)
            except httpx2.RequestError as error:
                self._once_more(effort, error)
                continue
            if not refusal.from_storage:
                refuse(refusal)
                why = f"it answers {_status(refusal.status)} to {request.url.path}"
                raise HubUnreachable(self._name, why, "Where it was removed since, --refresh decides anew.")
            effort.failed(f"its storage answers {_status(refusal.status)}")

    def close(self) -> None:
        """End the session. Who waits for it in another thread gets HubUnreachable."""
        self._patience.close()
        self._client.close()

    def _request(
        self,
        url: str,
        *,
        params: Mapping[str, str | list[str]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Request:
        try:
            return self._client.build_request("GET", url, params=params, headers=headers)
        except httpx2.InvalidURL as error:
            raise HubUnreachable(self._name, f"that is no address ({error})", "Check HF_ENDPOINT.") from error

    @contextmanager
    def _opened(self, effort: Effort, kind: Kind, request: httpx2.Request) -> Iterator[httpx2.Response]:
        """The first answer that does not ask for another try, its body unread."""
        while True:
            effort.wait_turn()
            most_s = max(_LEAST_TIMEOUT_S, effort.left_s())
            timeout = httpx2.Timeout(min(_READ_S[kind], most_s), connect=min(_CONNECT_S, most_s))
            request.extensions = {**request.extensions, "timeout": timeout.as_dict()}
            with self._followed(kind, request) as response:
                if response.status_code not in _AGAIN:
                    yield response
                    return
                why, pause_s = f"it answers {_status(response.status_code)}", _asked_pause_s(response)
            if pause_s is not None or response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
                effort.held_back(why, pause_s)
            else:
                effort.failed(why)

    @contextmanager
    def _followed(self, kind: Kind, request: httpx2.Request) -> Iterator[httpx2.Response]:
        """The answer at the end of all redirects. A remembered link that serves no longer is passed over."""
        hop = self._remembered(request) if kind == "file" else None
        try:
            for _ in range(_MOST_REDIRECTS):
                with self._lock:
                    self.n_requests[kind] += 1
                response = self._sent(hop or request)
                try:
                    stale = hop is not None and response.is_error and self._forget(request)
                    if not stale and not response.has_redirect_location:
                        self._remember(request, response)
                        yield response
                        return
                    hop = None if stale else self._redirected(response)
                    _drain(response)  # so that the connection serves again
                finally:
                    response.close()
        except httpx2.RequestError:
            self._forget(request)
            raise
        raise HubUnreachable(self._name, f"{request.url.host} redirects in a circle")

    def _remembered(self, request: httpx2.Request) -> httpx2.Request | None:
        """The request as it goes to the storage at once: with none of the headers that are for the Hub alone."""
        link, until = self._links.get(request.url, (None, 0.0))
        if link is None or time.monotonic() > until:
            self._forget(request)
            return None
        headers = {name: request.headers[name] for name in _FOR_ANYBODY if name in request.headers}
        return httpx2.Request("GET", link, headers=headers, extensions=request.extensions)

    def _remember(self, request: httpx2.Request, response: httpx2.Response) -> None:
        """Keep where a file's bytes came from, if that is another host than the Hub's."""
        if response.is_success and response.url.netloc != request.url.netloc and request.url not in self._links:
            self._links[request.url] = response.url, time.monotonic() + _LINK_S

    def _forget(self, request: httpx2.Request) -> bool:
        """Whether a link was remembered that is no longer."""
        return self._links.pop(request.url, None) is not None

    def _sent(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return self._client.send(request, stream=True, follow_redirects=False)
        except RuntimeError as error:
            if self._client.is_closed:  # by another thread, a moment ago
                raise HubUnreachable(self._name, "the request was given up") from error
            raise

    def _redirected(self, response: httpx2.Response) -> httpx2.Request:
        following = response.next_request
        if following is None or following.url.scheme not in ("http", "https"):
            raise HubUnreachable(self._name, f"{response.url.host} redirects to something that is no address")
        if response.url.scheme == "https" and following.url.scheme == "http":
            raise HubUnreachable(self._name, f"it redirects to {following.url.host} without encryption")
        return following

    def _pieces(self, response: httpx2.Response, at: int, stop: int) -> Iterator[bytes]:
        """The content from byte `at` on, never more than was asked for."""
        begins = _begins_at(response)
        if begins != at:
            raise RangesIgnored(self._name, f"{response.url.host} ignores the range that was asked for")
        for piece in response.iter_raw():
            if at >= stop:  # seen one piece late: a connection whose answer was read to its end serves again
                return
            yield piece[: stop - at]
            at += len(piece)

    def _once_more(self, effort: Effort, error: httpx2.RequestError) -> None:
        """Pause before the next try. Raises HubUnreachable where there is none."""
        if isinstance(error, httpx2.UnsupportedProtocol):
            raise HubUnreachable(self._name, "that is no address", "HF_ENDPOINT begins with https://.") from error
        if isinstance(error, httpx2.LocalProtocolError):  # its text quotes headers
            raise HubUnreachable(self._name, "the request cannot be sent as it is") from error
        host = error.request.url.host
        words = _words(error) if host in self._name else f"{host}: {_words(error)}"  # a redirect's host is named
        if "CERTIFICATE_VERIFY_FAILED" in words:  # no time heals it
            remedy = "Set SSL_CERT_FILE to your organisation's certificates, or name another mirror with HF_ENDPOINT."
            raise HubUnreachable(self._name, words, remedy) from error
        try:
            effort.failed(words)
        except HubUnreachable as end:
            raise end from error


def _bounded(response: httpx2.Response, most_bytes: int) -> bytes:
    """The body, cut one byte above `most_bytes`. Raises ReadTimeout where it comes drop by drop."""
    body = bytearray()
    began = time.monotonic()
    for piece in response.iter_bytes():
        body += piece
        if len(body) > most_bytes:
            break
        seconds = time.monotonic() - began
        if seconds > _DRIP_S and len(body) < seconds * _DRIP_BYTES_PER_S:
            raise httpx2.ReadTimeout(f"{len(body)} bytes in {seconds:.0f} s", request=response.request)
    return bytes(body[: most_bytes + 1])


def _refusal(response: httpx2.Response, request: httpx2.Request) -> Reply:
    body = _bounded(response, _MOST_REFUSAL_BYTES)
    return Reply(response.status_code, response.headers, body, from_storage=_is_storage(response, request))


def _is_storage(response: httpx2.Response, request: httpx2.Request) -> bool:
    """Whether what answered is not the Hub itself: an address it sent us to, without the Hub's own error headers."""
    return response.url != request.url and {"x-error-code", "x-error-message"}.isdisjoint(response.headers)


def _drain(response: httpx2.Response) -> None:
    if int(response.headers.get("Content-Length", _MOST_REFUSAL_BYTES + 1)) <= _MOST_REFUSAL_BYTES:
        response.read()


def _begins_at(response: httpx2.Response) -> int:
    """The offset of the content's first byte in the file: of a 206, its Content-Range says so."""
    if response.status_code != HTTPStatus.PARTIAL_CONTENT:
        return 0
    first = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isascii() and first.isdigit() else -1


def _size(response: httpx2.Response) -> int:
    """The file's size where a Content-Range names it; else 0: the answer's own length was the whole of it."""
    size = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(size) if size.isascii() and size.isdigit() else 0


def _asked_pause_s(response: httpx2.Response) -> float | None:
    """The pause that the Hub asks for, by Retry-After (seconds or a date) or by its rate limit's reset."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    if text:
        try:
            until = parsedate_to_datetime(text)
        except ValueError:
            return None
        return max(0.0, (until.astimezone(UTC) - datetime.now(UTC)).total_seconds())
    limit = parse_ratelimit_headers(response.headers)
    if response.status_code == HTTPStatus.TOO_MANY_REQUESTS and limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    return None


def _status(code: int) -> str:
    return f"{code} {responses.get(code, '')}".rstrip()


def _words(error: httpx2.RequestError) -> str:
    """What happened, without the number of the error and the full stop."""
    text = str(error).strip().rstrip(".") or type(error).__name__
    return text.partition("] ")[2] if text.startswith("[Errno ") else text
