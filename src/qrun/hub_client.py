"""What is asked of the Hub, as calls that give values: everything that goes there goes through here.

Answers are kept on this disk (`hub_cache`): listings and what stands on a branch for LISTING_LIFETIME_S, what stands
at a commit for good. Offline, the kept answers are given whatever their age, and nothing is asked. Any thread may
call. A client costs nothing until it asks: only then are huggingface_hub and httpx2 imported.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

from qrun.errors import UnsafeFile
from qrun.hub_answers import EXPAND, Reply, branches_of, listing_of, repo_of, rows_of
from qrun.hub_cache import HubCache
from qrun.hub_errors import AccessDenied, HubUnreachable, RangesIgnored, TokenRefused
from qrun.hub_info import RepoInfo, RepoListing
from qrun.hub_patience import Kind
from qrun.hub_settings import HubSettings
from qrun.hub_threads import in_threads

__all__ = ["BLOCK_BYTES", "LISTING_LIFETIME_S", "HubClient"]

S = TypeVar("S")
T = TypeVar("T")
Params = Mapping[str, str | list[str]]

LISTING_LIFETIME_S = 900.0
BLOCK_BYTES = 2**20  # what ranged reads are kept in
_PAGE_ROWS = 1000  # the most the Hub gives at once
_MOST_PAGES = 30  # a listing that goes on after them is broken: pages of the real Hub have 100 rows and more
_MOST_API_BYTES = 64 * 2**20  # a repo of 50,000 files is 15 MB
_THREADS = 16

_REPO_ID = re.compile(r"(?!.*(?:^|/)\.{1,2}(?:/|$))[\w.-]{1,96}(?:/[\w.-]{1,96})?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MAIN = "main"  # the Hub's name for every repo's default branch
_DISABLED = "Access to this resource is disabled."  # X-Error-Message of a repo that the Hub has taken down (with 403)
_NOT_THERE = (401, 403, 404, 410, 451)  # what is left of them when gates and bad tokens are taken out


class Session(Protocol):
    """How the client asks (`hub_transport`), known by its members so that it is imported late."""

    @property
    def n_requests(self) -> Mapping[Kind, int]:
        """How many requests were sent, redirects and repeats included."""
        ...

    def get(self, kind: Kind, url: str, *, params: Params | None = None, most_bytes: int) -> Reply:
        """The whole answer to a GET."""
        ...

    def stream(self, url: str, start: int, stop: int, refuse: Callable[[Reply], None]) -> Generator[bytes]:
        """The bytes [start, stop) of a file."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class HubClient:
    """The Hub as one process asks it."""

    def __init__(self, settings: HubSettings, *, refresh: bool = False) -> None:
        """`refresh`: what was kept before now is not used, unless it stands at a commit."""
        self._settings = settings
        self._began = time.time()
        self._refresh = refresh
        self._cache = HubCache(settings.listings_dir)
        self._lock = threading.Lock()
        self._opened: Session | None = None
        self._n_file_bytes = 0

    @property
    def n_calls(self) -> int:
        """API requests sent so far, pages, redirects and repeats included; not those for files."""
        return self._opened.n_requests["api"] if self._opened else 0

    @property
    def n_file_bytes(self) -> int:
        """Bytes of headers and small files that came over the network so far."""
        return self._n_file_bytes

    def models(
        self, *, search: str | None = None, author: str | None = None, tags: Sequence[str] = (), limit: int = 300
    ) -> tuple[RepoListing, ...]:
        """The repos that match all of it, the most downloaded first, with the paths of their files.

        Raises HubUnreachable, TokenRefused.
        """
        key = self._key("models", json.dumps([search, author, list(tags), limit]))
        if (kept := self._kept_value(key, listing_of)) is not None:
            return kept
        asked = {"search": search, "author": author, "sort": "downloads", "limit": str(min(limit, _PAGE_ROWS))}
        params: Params = {name: value for name, value in asked.items() if value}
        rows = self._all_rows({**params, "filter": list(tags), "expand": list(EXPAND)}, limit)
        body = json.dumps(rows, separators=(",", ":")).encode()
        listing = self._parsed(listing_of, body)
        self._cache.put(key, body)
        return listing

    def repo(self, repo_id: str, revision: str | None = None) -> RepoInfo | None:
        """The repo at a branch, tag or commit (default: its main branch), with every file's size.

        None: no such repo or revision, or a private one. A repo that was renamed is given under its new name. Raises
        AccessDenied for a gated one whose very metadata is closed, HubUnreachable, TokenRefused.
        """
        if not _REPO_ID.fullmatch(repo_id) or revision in ("", ".", ".."):
            return None
        at_commit = revision is not None and _COMMIT.fullmatch(revision) is not None
        key = self._key("repo", repo_id, revision or _MAIN)
        if (kept := self._kept_value(key, repo_of, for_good=at_commit)) is not None:
            return kept
        at = "" if revision is None else f"/revision/{quote(revision, safe='')}"
        reply = self._asked(f"/api/models/{repo_id}{at}", {"blobs": "true"}, repo_id)
        if reply is None:
            return None
        info = self._parsed(repo_of, reply.body)
        self._cache.put(key, reply.body)
        if not at_commit:
            self._cache.put(self._key("repo", repo_id, info.commit), reply.body)
        return info

    def branches(self, repo_id: str) -> Mapping[str, str]:
        """Branch and tag names with their commits; none of a repo that is not there. Raises as `repo` does."""
        if not _REPO_ID.fullmatch(repo_id):
            return {}
        key = self._key("refs", repo_id)
        if (kept := self._kept_value(key, branches_of)) is not None:
            return kept
        reply = self._asked(f"/api/models/{repo_id}/refs", {}, repo_id)
        if reply is None:
            return {}
        branches = self._parsed(branches_of, reply.body)
        self._cache.put(key, reply.body)
        return branches

    def small_file(self, repo_id: str, commit: str, path: str, *, most_bytes: int) -> bytes | None:
        """A whole file, kept for good; None: not there, or longer than `most_bytes`.

        Raises AccessDenied, HubUnreachable, TokenRefused, and UnsafeFile for a path that leaves the repo.
        """
        url = self._file_url(repo_id, commit, path)
        key = self._key("file", repo_id, commit, path)
        body = self._kept(key, for_good=True)
        if body is None:
            reply = self._session().get("file", url, most_bytes=most_bytes)
            self._count(len(reply.body))
            if reply.status != HTTPStatus.OK:
                self._refuse(reply, repo_id)
                return None
            body = reply.body
            if len(body) <= most_bytes:
                self._cache.put(key, body)
        return body if len(body) <= most_bytes else None

    def read(self, repo_id: str, commit: str, path: str, *, key: str, start: int, n: int) -> bytes:
        """The bytes [start, start + n) of a file, fewer where it ends before.

        Kept for good in blocks of BLOCK_BYTES, which are read whole, under `key`: the file's sha256 or blob id.
        Raises AccessDenied, HubUnreachable, TokenRefused, UnsafeFile.
        """
        if n <= 0:
            return b""
        first, last = start // BLOCK_BYTES, (start + n - 1) // BLOCK_BYTES
        blocks = self._kept_blocks(key, first, last)
        missing = [index for index in range(first, last + 1) if index not in blocks]
        if missing:
            begin = missing[0] * BLOCK_BYTES
            content = self._part(repo_id, commit, path, begin, (missing[-1] + 1) * BLOCK_BYTES)
            for index in range(missing[0], missing[-1] + 1):
                at = index * BLOCK_BYTES - begin
                blocks[index] = content[at : at + BLOCK_BYTES]
                if blocks[index]:
                    self._cache.put(self._key("block", key, str(index)), blocks[index])
        whole = b"".join(blocks[index] for index in range(first, last + 1))
        at = start - first * BLOCK_BYTES
        return whole[at : at + n]

    @contextmanager
    def ranged(self, repo_id: str, commit: str, path: str, start: int, stop: int) -> Iterator[Iterator[bytes]]:
        """The bytes [start, stop) of a file as they come: an iterator, which asks when its first piece is taken.

        It goes on after broken connections and expired links by itself, and ends early only where the file does.
        While it is read it raises HubUnreachable (also for a file that is gone), AccessDenied, TokenRefused, and
        RangesIgnored where the server cannot begin at `start`; at once UnsafeFile. Leaving the block ends the request.
        """
        url = self._file_url(repo_id, commit, path)
        with closing(self._session().stream(url, start, stop, partial(self._refuse, repo_id=repo_id))) as pieces:
            yield pieces

    def together(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """All calls in threads, their results in the same order. The first error, by order, is raised after all ended.

        Ctrl-C returns at once: the threads are left to end by themselves, and hold up nobody's exit.
        """
        return in_threads(calls, most=_THREADS)

    def close(self) -> None:
        """End the session; threads that wait for it get HubUnreachable."""
        if self._opened:
            self._opened.close()

    def _session(self) -> Session:
        """The session, opened at the first request. Raises HubUnreachable where nothing may be asked."""
        if self._settings.offline:
            raise self._offline()
        try:
            urlsplit(self._settings.endpoint)  # huggingface_hub does so when it is imported
        except ValueError as error:
            why = f"that is no address ({error})"
            raise HubUnreachable(self._settings.shown_endpoint, why, "Check HF_ENDPOINT.") from error
        with self._lock:
            if self._opened is None:
                from qrun.hub_session import open_session

                self._opened = open_session(self._settings)
            return self._opened

    def _asked(self, path: str, params: Params, repo_id: str) -> Reply | None:
        """The good answer of an API route; None where there is no such repo."""
        url = f"{self._settings.endpoint}{path}"
        reply = self._session().get("api", url, params=params, most_bytes=_MOST_API_BYTES)
        if reply.status != HTTPStatus.OK:
            self._refuse(reply, repo_id)
            return None
        if len(reply.body) > _MOST_API_BYTES:
            raise self._unreadable(f"an answer of more than {_MOST_API_BYTES // 2**20} MiB")
        return reply

    def _all_rows(self, params: Params, limit: int) -> list[Any]:
        """The first `limit` rows of a listing, over as many pages as that takes."""
        rows: list[Any] = []
        for _ in range(_MOST_PAGES):
            reply = self._asked("/api/models", params, "")
            if reply is None:
                raise self._unreadable("no listing")
            page = self._parsed(rows_of, reply.body)
            rows += page
            if len(rows) >= limit or not page or reply.next_page is None:
                return rows[:limit]
            # Of the next address only the query is taken: a mirror hands on addresses of the Hub that it mirrors, and
            # the token must not follow a link to wherever.
            params = parse_qs(urlsplit(reply.next_page).query)
        raise self._unreadable("a listing without an end")

    def _part(self, repo_id: str, commit: str, path: str, start: int, stop: int) -> bytes:
        """The bytes [start, stop), from a server without ranges too."""
        content = bytearray()
        try:
            with self.ranged(repo_id, commit, path, start, stop) as pieces:
                for piece in pieces:
                    content += piece
        except RangesIgnored:
            with self.ranged(repo_id, commit, path, 0, stop) as pieces:
                for piece in pieces:
                    content += piece
            self._count(len(content))
            return bytes(content[start:])
        self._count(len(content))
        return bytes(content)

    def _kept_blocks(self, key: str, first: int, last: int) -> dict[int, bytes]:
        """The kept blocks of [first, last]; what lies behind a short one is known to be empty."""
        blocks: dict[int, bytes] = {}
        for index in range(first, last + 1):
            entry = self._cache.get(self._key("block", key, str(index)))
            if entry is None:
                continue
            blocks[index] = entry.payload
            if len(entry.payload) < BLOCK_BYTES:
                blocks |= dict.fromkeys(range(index + 1, last + 1), b"")
                break
        return blocks

    def _kept_value(self, key: str, parse: Callable[[bytes], T], *, for_good: bool = False) -> T | None:
        """The kept answer as a value. One that an earlier qrun kept and this one cannot read is as good as none."""
        body = self._kept(key, for_good=for_good)
        try:
            return None if body is None else parse(body)
        except ValueError:
            return None

    def _kept(self, key: str, *, for_good: bool = False) -> bytes | None:
        """The kept answer, where it may be used. Raises HubUnreachable where there is none and none may be asked."""
        entry = self._cache.get(key)
        if self._settings.offline and entry is None:
            raise self._offline()
        if entry is None or for_good or self._settings.offline:
            return entry.payload if entry else None
        usable = entry.is_fresh(LISTING_LIFETIME_S) and not (self._refresh and entry.saved_at < self._began)
        return entry.payload if usable else None

    def _key(self, *parts: str) -> str:
        """What an answer is kept under: the Hub, whether a token went along, and the question."""
        signed_in = self._sends_token()
        return json.dumps([self._settings.endpoint, signed_in, *parts])

    def _sends_token(self) -> bool:
        """Whether a token goes along, as far as that is known without loading huggingface_hub."""
        settings = self._settings
        return settings.token is not None or (settings.implicit_token and settings.token_path.exists())

    def _file_url(self, repo_id: str, commit: str, path: str) -> str:
        parts = path.split("/")
        if not _REPO_ID.fullmatch(repo_id) or not {commit, *parts}.isdisjoint(("", ".", "..")):
            raise UnsafeFile(f"{repo_id}/{path}", "its name does not stay in the repo")
        return f"{self._settings.endpoint}/{repo_id}/resolve/{quote(commit, safe='')}/{quote(path)}"

    def _refuse(self, reply: Reply, repo_id: str) -> None:
        """What an answer that is no content means; nothing where it means that there is no such thing.

        By the headers that huggingface_hub's `hf_raise_for_status` goes by. The Hub says 401 for repos that do not
        exist too.
        """
        code, message = reply.headers.get("X-Error-Code", ""), reply.headers.get("X-Error-Message", "")
        hub = self._settings.shown_endpoint
        if reply.from_storage:
            raise HubUnreachable(hub, f"its storage answers {reply.status}")
        if reply.status == HTTPStatus.UNAUTHORIZED and message.startswith("Invalid credentials"):
            raise TokenRefused(repo_id, f"{hub}/settings/tokens", logged_in=True)
        if code == "GatedRepo" or (reply.status == HTTPStatus.FORBIDDEN and message != _DISABLED):
            raise AccessDenied(repo_id, f"{hub}/{repo_id}", logged_in=self._sends_token())
        if reply.status not in _NOT_THERE:
            raise HubUnreachable(hub, f"it answers {reply.status} to a request for {repo_id or 'a listing'}")

    def _parsed(self, parse: Callable[[S], T], answer: S) -> T:
        try:
            return parse(answer)
        except (ValueError, RecursionError) as error:
            raise self._unreadable(f"something that is no answer of a Hub ({error})") from error

    def _count(self, n_bytes: int) -> None:
        with self._lock:
            self._n_file_bytes += n_bytes

    def _unreadable(self, what: str) -> HubUnreachable:
        return HubUnreachable(self._settings.shown_endpoint, f"it answers {what}")

    def _offline(self) -> HubUnreachable:
        why = "it may not be asked (--offline, HF_HUB_OFFLINE), and what is needed was not kept"
        return HubUnreachable(self._settings.shown_endpoint, why, "Run this once without --offline.")
