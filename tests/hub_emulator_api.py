"""The emulated Hub's routes: a request in, an answer out, no socket.

The paths, parameters, status codes and `X-Error-Code`s are those that huggingface_hub 2.4 sends and maps to its errors
(hf_api.py, file_download.py, utils/_http.py).
"""

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, unquote, urlencode

import hub_emulator_json as told
from hub_emulator_blobs import Blob
from hub_emulator_repos import Commit, Repo, Shelf

__all__ = ["Answer", "Api", "Request"]

_ROUTES = frozenset({"revision", "tree", "refs", "paths-info", "commits", "auth-check"})
_MOST_ROWS = 1000  # a page of a listing or a tree; 50 of a tree with `expand` (hf_api.py says so of trees)
_SORT_KEYS = {
    "downloads": lambda repo: repo.downloads,
    "likes": lambda repo: repo.downloads // 1000,
    "trendingScore": lambda repo: repo.downloads,
    "lastModified": lambda repo: repo.main.date,
    "createdAt": lambda repo: repo.created,
}
_TEXT_SUFFIX = re.compile(r"\.(json|jsonl|md|txt|py|yaml|yml|jinja|model_card)$")


@dataclass(frozen=True)
class Request:
    """A request as it came: `path` is still quoted, header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes = b""

    def one(self, name: str) -> str | None:
        """The last value of a parameter."""
        values = self.query.get(name)
        return values[-1] if values else None

    def all(self, name: str) -> list[str]:
        """Every value of a parameter, also of one written `name[]`."""
        return [*self.query.get(name, []), *self.query.get(f"{name}[]", [])]

    def flag(self, name: str) -> bool:
        """Whether a yes-or-no parameter is on."""
        return (self.one(name) or "").lower() in ("1", "true")

    @property
    def token(self) -> str | None:
        """The bearer token, where one was sent."""
        kind, _, value = self.headers.get("authorization", "").partition(" ")
        return value.strip() if kind.lower() == "bearer" else None


@dataclass
class Answer:
    """`blob` is a file to send from `start` to `stop`; `body` anything else."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    blob: Blob | None = None
    start: int = 0
    stop: int = 0


class _Refused(Exception):
    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Api:
    """The Hub (`answer`) and the host that its LFS files are fetched from (`answer_of_files`)."""

    def __init__(self, shelf: Shelf, tokens: Mapping[str, str]) -> None:
        self.shelf = shelf
        self.tokens = tokens  # token -> user
        self.endpoint = ""
        self.files_endpoint = ""
        self.link_lifetime_s = 3600.0
        self.cached_small_files = False
        self._secret = secrets.token_bytes(16)
        self._linked: dict[str, Blob] = {}
        self._rows: dict[tuple[str, str, str], str] = {}

    def changed(self) -> None:
        """A repo is new or moved: rows written before no longer hold."""
        self._rows.clear()
        self.shelf.changed()

    def answer(self, request: Request) -> Answer:
        """What the Hub says."""
        try:
            if request.token is not None and request.token not in self.tokens:
                raise _refused(401, "Invalid credentials in Authorization header")
            return self._route(request)
        except _Refused as refused:
            return refused.answer

    def answer_of_files(self, request: Request) -> Answer:
        """What the host of the LFS files says to a signed address."""
        if "authorization" in request.headers:
            # Storage hosts refuse a request that is signed twice (S3: "Only one auth mechanism allowed"), and a token
            # that goes to another host is a leak, so the tests want it loud.
            return _refusal(400, "Only one auth mechanism allowed")
        expires = request.one("Expires") or "0"
        signature = request.one("Signature") or ""
        blob = self._linked.get(request.path)
        if blob is None or not hmac.compare_digest(signature, self._signature(request.path, expires)):
            return _refusal(403, "AccessDenied")
        if float(expires) < time.time():
            return _refusal(403, "Request has expired")
        name = request.path.rpartition("/")[2]
        # The storage has an ETag of its own that is not the file's sha256.
        etag = hashlib.sha1(blob.sha256.encode(), usedforsecurity=False).hexdigest()
        headers = {"ETag": f'"{etag}"', "Content-Disposition": f"inline; filename*=UTF-8''{name}; filename=\"{name}\";"}
        return _file(request, blob, headers | {"Content-Type": "application/octet-stream"})

    def repo_in(self, path: str) -> Repo | None:
        """The repo that a request path is about."""
        segments = [unquote(segment) for segment in path.strip("/").split("/")]
        segments = segments[2:] if segments[:2] == ["api", "models"] else segments
        return self.shelf.repos.get("/".join(segments[1:3] if segments[:1] == ["cdn"] else segments[:2]))

    def _route(self, request: Request) -> Answer:
        segments = [unquote(segment) for segment in request.path.strip("/").split("/")]
        match segments:
            case ["api", "models"]:
                return self._models(request)
            case ["api", "whoami-v2"]:
                return self._whoami(request)
            case ["api", "models", *rest]:
                return self._of_repo(request, rest)
            case ["api", "resolve-cache", "models", owner, name, commit, *path] if path:
                return self._resolve(request, f"{owner}/{name}", commit, "/".join(path), is_final=True)
            case [owner, name, "resolve", revision, *path] if path:
                return self._resolve(request, f"{owner}/{name}", revision, "/".join(path))
            case [name, "resolve", revision, *path] if path:
                return self._resolve(request, name, revision, "/".join(path))
        raise _refused(404, "Sorry, we can't find the page you are looking for.")

    def _whoami(self, request: Request) -> Answer:
        if request.token is None:
            raise _refused(401, "Invalid username or password.")
        return _json(told.whoami(self.tokens[request.token]))

    def _models(self, request: Request) -> Answer:
        expand = _expand(request)
        gated = request.one("gated")
        found = self.shelf.matching(
            search=request.one("search"),
            author=request.one("author"),
            tags=request.all("filter"),
            apps=request.all("apps"),
            gated=None if gated is None else gated.lower() == "true",
            token=request.token,
        )
        sort = request.one("sort") or "trendingScore"
        if sort not in _SORT_KEYS:
            raise _refused(400, f"Invalid sort: {sort}")
        found = sorted(found, key=_SORT_KEYS[sort], reverse=True)  # the Hub sorts downwards only
        page, headers = self._page(request, found, _MOST_ROWS)
        rows = [self._row(request, repo, expand) for repo in page]
        return Answer(200, headers | _JSON, f"[{','.join(rows)}]".encode())

    def _row(self, request: Request, repo: Repo, expand: list[str]) -> str:
        """A row as text, kept: a listing of thousands must not be slow because of us."""
        wanted = {name: request.flag(name) for name in ("full", "cardData", "config")}
        key = (repo.repo_id, repo.main.sha, repr((wanted, expand)))
        row = self._rows.get(key)
        if row is None:
            shown = told.listed(
                repo, full=wanted["full"], card=wanted["cardData"], config=wanted["config"], expand=expand
            )
            row = self._rows[key] = json.dumps(shown)
        return row

    def _of_repo(self, request: Request, rest: list[str]) -> Answer:
        n_names = 1 if len(rest) == 1 or (rest[1] in _ROUTES and "/".join(rest[:2]) not in self.shelf.repos) else 2
        repo = self._visible(request, "/".join(rest[:n_names]))
        match rest[n_names:]:
            case []:
                return self._info(request, repo, repo.main)
            case ["revision", revision]:
                return self._info(request, repo, _commit(repo, revision))
            case ["tree", revision, *folder]:
                return self._tree(request, _commit(repo, revision), "/".join(folder))
            case ["commits", revision]:
                return self._commits(request, _commit(repo, revision))
        return self._unpaged(request, repo, rest[n_names:])

    def _unpaged(self, request: Request, repo: Repo, rest: list[str]) -> Answer:
        match rest:
            case ["refs"]:
                return _json(told.refs(repo, pull_requests=request.flag("include_prs")))
            case ["paths-info", revision] if request.method == "POST":
                return _paths_info(request, _commit(repo, revision))
            case ["auth-check"]:
                _check_gate(request, repo)
                return _json({})
        raise _refused(404, "Sorry, we can't find the page you are looking for.")

    def _info(self, request: Request, repo: Repo, commit: Commit) -> Answer:
        # Whoever may see that a gated repo exists sees its files' names and sizes too: only their bytes are closed.
        return _json(told.info(repo, commit, blobs=request.flag("blobs"), expand=_expand(request)))

    def _tree(self, request: Request, commit: Commit, folder: str) -> Answer:
        folder = folder.strip("/")
        if folder and folder not in commit.folders:
            raise _entry_missing(commit, folder)
        rows = told.entries(commit, folder, recursive=request.flag("recursive"))
        page, headers = self._page(request, rows, 50 if request.flag("expand") else _MOST_ROWS)
        return _json(page, headers)

    def _commits(self, request: Request, commit: Commit) -> Answer:
        rows = []
        while commit:
            rows.append(told.commit_row(commit))
            commit = commit.parent
        page, headers = self._page(request, rows, _MOST_ROWS)
        return _json(page, headers)

    def _page(self, request: Request, rows: list, most: int) -> tuple[list, dict[str, str]]:
        """The rows of this page, and the Link to the next. The real cursor is opaque too; that it counts is ours.

        `limit` is the size of a page, not of the whole answer: huggingface_hub itself stops after that many rows.
        """
        limit = request.one("limit") or str(most)
        cursor = request.one("cursor") or "0"
        if not limit.isdecimal() or not cursor.isdecimal():
            raise _refused(400, "Invalid limit or cursor")
        start, size = int(cursor), max(1, min(int(limit), most))
        stop = start + size
        if stop >= len(rows):
            return rows[start:], {}
        query = {name: values for name, values in request.query.items() if name != "cursor"} | {"cursor": [str(stop)]}
        link = f"{self.endpoint}{request.path}?{urlencode(query, doseq=True)}"
        return rows[start:stop], {"Link": f'<{link}>; rel="next"'}

    def _visible(self, request: Request, repo_id: str) -> Repo:
        today = self.shelf.moved.get(repo_id)
        if today is not None:
            query = f"?{urlencode(request.query, doseq=True)}" if request.query else ""
            location = request.path.replace(quote(repo_id), quote(today), 1) + query  # relative, as the Hub's are
            raise _Refused(Answer(307, {"Location": location}))
        repo = self.shelf.repos.get(repo_id)
        if repo is not None and (not repo.private or request.token in repo.readers):
            return repo
        # To a stranger the Hub does not tell "missing" from "private": 401. Who is logged in gets 404.
        status, message = (
            (401, "Invalid username or password.") if request.token is None else (404, "Repository not found")
        )
        raise _refused(status, message, code="RepoNotFound")

    def _resolve(self, request: Request, repo_id: str, revision: str, path: str, *, is_final: bool = False) -> Answer:
        repo = self._visible(request, repo_id)
        _check_gate(request, repo)
        commit = _commit(repo, revision)
        blob = commit.blobs.get(path)
        if blob is None:
            raise _entry_missing(commit, path)
        headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
        if blob.lfs:
            linked = {"X-Linked-Size": str(blob.size_bytes), "X-Linked-ETag": f'"{blob.sha256}"'}
            return Answer(302, headers | linked | {"Location": self._link(repo, path, blob)})
        if self.cached_small_files and not is_final:
            cached = f"/api/resolve-cache/models/{quote(repo_id)}/{commit.sha}/{quote(path)}"
            query = urlencode({request.path: "", "etag": f'"{blob.git_id}"'})
            return Answer(307, headers | {"Location": f"{cached}?{query}"})
        return _small_file(request, path, blob, headers)

    def _link(self, repo: Repo, path: str, blob: Blob) -> str:
        """A signed address with an expiry, on a host of its own, as for every LFS file of the Hub."""
        path = f"/cdn/{quote(repo.repo_id)}/{blob.sha256}/{quote(path)}"
        self._linked[path] = blob
        expires = f"{time.time() + self.link_lifetime_s:.3f}"
        query = urlencode({"Expires": expires, "Signature": self._signature(path, expires), "Key-Pair-Id": "EMULATOR"})
        return f"{self.files_endpoint}{path}?{query}"

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._secret, f"{path}\0{expires}".encode(), "sha256").hexdigest()


_JSON = {"Content-Type": "application/json; charset=utf-8"}


def _json(value: object, headers: Mapping[str, str] = {}) -> Answer:
    return Answer(200, {**headers, **_JSON}, json.dumps(value).encode())


def _refusal(status: int, message: str, *, code: str | None = None, commit: Commit | None = None) -> Answer:
    headers = _JSON | {"X-Error-Message": message}
    if code:
        headers["X-Error-Code"] = code
    if commit:
        headers["X-Repo-Commit"] = commit.sha
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="Authentication required", charset="UTF-8"'
    return Answer(status, headers, json.dumps({"error": message}).encode())


def _refused(status: int, message: str, *, code: str | None = None, commit: Commit | None = None) -> _Refused:
    return _Refused(_refusal(status, message, code=code, commit=commit))


def _entry_missing(commit: Commit, path: str) -> _Refused:
    return _refused(404, f"{path} does not exist on {commit.sha!r}", code="EntryNotFound", commit=commit)


def _commit(repo: Repo, revision: str) -> Commit:
    commit = repo.commit_at(revision)
    if commit is None:
        raise _refused(404, f"Invalid rev id: {revision}", code="RevisionNotFound")
    return commit


def _check_gate(request: Request, repo: Repo) -> None:
    if not repo.gated or request.token in repo.readers:
        return
    if request.token is None:
        message = f"Access to model {repo.repo_id} is restricted. You must have access to it and be authenticated."
        raise _refused(401, message, code="GatedRepo")
    message = f"Access to model {repo.repo_id} is restricted and you are not in the authorized list."
    raise _refused(403, message, code="GatedRepo")


def _expand(request: Request) -> list[str]:
    names = request.all("expand")
    unknown = [name for name in names if name not in told.EXPANDABLE]
    if unknown:
        raise _refused(400, f"Invalid expand: {', '.join(unknown)}")
    return names


def _paths_info(request: Request, commit: Commit) -> Answer:
    """Paths that are not there are left out, without an error (hf_api.py, get_paths_info)."""
    form = parse_qs(request.body.decode())
    paths = [path.strip("/") for path in form.get("paths", [])]
    return _json([told.entry(commit, path) for path in paths if path in commit.blobs or path in commit.folders])


def _small_file(request: Request, path: str, blob: Blob, headers: Mapping[str, str]) -> Answer:
    """A file that lies in git itself.

    Text is sent gzipped and in chunks, its range ignored, to who accepts that (file_download.py, http_get, tells of
    both); `gzip` marks it for the server.
    """
    headers = {**headers, "ETag": f'"{blob.git_id}"', "Content-Type": "text/plain; charset=utf-8"}
    gzips = request.method == "GET" and "gzip" in request.headers.get("accept-encoding", "")
    if gzips and _TEXT_SUFFIX.search(path):
        headers |= {"ETag": f'W/"{blob.git_id}"', "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return Answer(200, headers, blob=blob, stop=blob.size_bytes)
    return _file(request, blob, headers)


def _file(request: Request, blob: Blob, headers: Mapping[str, str]) -> Answer:
    """The whole file, or the range asked for. Several ranges at once are answered by the whole, as RFC 9110 allows."""
    size = blob.size_bytes
    headers = {**headers, "Accept-Ranges": "bytes"}
    whole = Answer(200, headers, blob=blob, stop=size)
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", "").replace(" ", ""))
    if asked is None or asked.group(0) == "bytes=-":
        return whole
    if request.headers.get("if-range", headers["ETag"]) != headers["ETag"]:
        return whole
    first, last = asked.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if first and last and int(last) < int(first):
        return whole  # no valid range: it counts as none
    if start >= size:
        return Answer(416, headers | {"Content-Range": f"bytes */{size}"})
    return Answer(
        206, headers | {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}, blob=blob, start=start, stop=stop
    )
