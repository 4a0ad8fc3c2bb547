"""A Hub for the tests: the real huggingface_hub talks to it through HF_ENDPOINT.

    with HubEmulator() as hub:
        hub.add_repo("org/model-GGUF", {"model-Q4_K_M.gguf": Path(...), "README.md": b"..."}, base_model="org/model")
        HfApi(endpoint=hub.endpoint).model_info("org/model-GGUF")

By hand: `python tests/hub_emulator.py --listing --folder DIR --port 0` prints the address and serves until interrupted.
LFS files are answered with a redirect to a signed address on another port, which is another host to a client, as the
Hub's storage is. Faults are made by `fault`; what was asked stands in `requests`.
"""

import argparse
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from hub_data import add_listing
from hub_emulator_api import Api, Request
from hub_emulator_faults import Fault, Faults, Kind
from hub_emulator_http import HubServer, Seen
from hub_emulator_repos import Content, Files, Repo, Shelf, commit_of

__all__ = ["HubEmulator", "Seen"]

_DATE = "2026-01-01T00:00:00.000Z"


class HubEmulator:
    """The Hub on loopback, from `with` until its end. Repos may be added and moved while it runs."""

    def __init__(self, *, port: int = 0, cached_small_files: bool = False) -> None:
        """`cached_small_files`: a relative redirect stands before a file that lies in git, as on today's Hub."""
        self.requests: list[Seen] = []
        self.shelf = Shelf()
        self._tokens: dict[str, str] = {}
        self._faults = Faults()
        self._api = Api(self.shelf, self._tokens)
        self._api.cached_small_files = cached_small_files
        shared = {"moved": self._move, "faults": self._faults, "seen": self.requests}
        self._hub = HubServer("hub", port, answer=self._api.answer, **shared)
        self._files = HubServer("files", 0, answer=self._api.answer_of_files, **shared)
        self._api.endpoint, self._api.files_endpoint = self._hub.endpoint, self._files.endpoint

    def __enter__(self) -> Self:
        self._hub.start()
        self._files.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._hub.close()
        self._files.close()
        errors = [*self._hub.errors, *self._files.errors]
        if errors:
            raise RuntimeError("the Hub emulator itself failed") from errors[0]

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT is to be."""
        return self._hub.endpoint

    @property
    def files_endpoint(self) -> str:
        """The host that LFS files come from; their paths are `/cdn/ORG/NAME/SHA256/PATH`."""
        return self._files.endpoint

    @property
    def link_lifetime_s(self) -> float:
        """How long the signed address of a file is good for; the real Hub's are for an hour."""
        return self._api.link_lifetime_s

    @link_lifetime_s.setter
    def link_lifetime_s(self, seconds: float) -> None:
        self._api.link_lifetime_s = seconds

    def add_repo(
        self,
        repo_id: str,
        files: Files,
        *,
        base_model: str | Sequence[str] | None = None,
        relation: str | None = None,
        tags: Sequence[str] = (),
        gated: Literal[False, "auto", "manual"] = False,
        token: str | None = None,
        private: bool = False,
        downloads: int = 0,
        library: str | None = None,
        last_modified: str = _DATE,
        branches: Mapping[str, Files] = {},
        gguf: Mapping[str, object] | None = None,
    ) -> str:
        """Put a repo on the Hub; the commit of its main branch.

        A file is bytes, a path of a file whose bytes are served, or a number of bytes: zeros, whose sha256 is made up
        where the file would lie in LFS, so that a download does not verify. Without `base_model`, what README.md's
        head says holds. `token` is the one that may read a gated or private repo; any other token has to be made known
        by `add_token`, or it is refused as invalid, with 401 everywhere.
        """
        made = {name: commit_of(repo_id, held, date=last_modified, title=name) for name, held in branches.items()}
        main = commit_of(repo_id, files, date=last_modified, title="initial commit")
        bases = (base_model,) if isinstance(base_model, str) else tuple(base_model or ())
        repo = Repo(
            repo_id,
            {"main": main} | made,
            base_models=bases,
            relation=relation,
            extra_tags=tuple(tags),
            gated=gated,
            private=private,
            readers=frozenset([token] if token else []),
            downloads=downloads,
            library=library,
            gguf=gguf,
        )
        if token:
            self.add_token(token)
        self.shelf.add(repo)
        self._api.changed()
        return main.sha

    def add_folder(self, root: Path, **facts: object) -> list[str]:
        """Every `ORG/NAME/files` under `root` as a repo, with the same `facts` (add_repo's); their ids."""
        repo_ids = []
        for folder in sorted(path for path in root.glob("*/*") if path.is_dir()):
            files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
            repo_id = folder.relative_to(root).as_posix()
            self.add_repo(repo_id, files, **facts)
            repo_ids.append(repo_id)
        return repo_ids

    def add_listing(
        self, *, tags: Literal["all", "old", "none"] = "old", copies: int = 0, headers: bool = False
    ) -> None:
        """The real listing of tests/data/hub: over a thousand repos by names and sizes, their bases among them.

        `tags`: which quants say what they are made from: "all", only the newer publishers' ("old"), or "none".
        `copies`: how often the whole is repeated under other owners. `headers`: GGUFs begin with a true header where
        the base's dimensions are known and the label allows one; all else, and everything without, is zeros.
        """
        add_listing(self.add_repo, self.add_alias, tags=tags, copies=copies, headers=headers)

    def add_token(self, token: str, user: str = "someone") -> None:
        """Let `token` be a valid one: it may read what is public, and no gated repo."""
        self._tokens[token] = user

    def accept(self, repo_id: str, token: str) -> None:
        """Let `token`, a valid one from now on, read this gated or private repo too."""
        self.add_token(token)
        repo = self.shelf.repos[repo_id]
        repo.readers |= {token}

    def add_alias(self, old_id: str, repo_id: str) -> None:
        """Let requests for `old_id` be redirected to `repo_id`, as after a repo was renamed."""
        self.shelf.moved[old_id] = repo_id

    def add_tag(self, repo_id: str, name: str, revision: str = "main") -> None:
        """Give a commit of the repo a git tag."""
        commit = self.shelf.repos[repo_id].commit_at(revision)
        if commit is None:
            raise ValueError(f"{repo_id} has no revision {revision}")
        self.shelf.repos[repo_id].tagged[name] = commit

    def replace_files(
        self, repo_id: str, files: Files, *, branch: str = "main", last_modified: str = "2026-02-01T00:00:00.000Z"
    ) -> str:
        """A new commit of exactly `files` on `branch`, which may be new: the repo moved. The commit before stays."""
        repo = self.shelf.repos[repo_id]
        before = repo.branches.get(branch)
        commit = commit_of(repo_id, files, date=last_modified, title="Update files", parent=before)
        repo.move(branch, commit)
        self._api.changed()
        return commit.sha

    def remove_repo(self, repo_id: str) -> None:
        """Take a repo off the Hub."""
        del self.shelf.repos[repo_id]
        self._api.changed()

    def fault(
        self,
        kind: Kind,
        *,
        path: str = ".*",
        method: str | None = None,
        times: int | None = None,
        after_bytes: int | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        delay_s: float | None = None,
        bytes_per_s: float | None = None,
        location: str | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] = {},
        files: Mapping[str, Content] | None = None,
    ) -> None:
        """Let requests whose path (quoted, without the query) `path` is found in go wrong, `times` times.

        Every kind waits `delay_s` first ("delay" does nothing else). Instead of the answer: "status" (503 unless said;
        `retry_after`, `headers`, `body`), "reset" (the connection is reset), "hang" (no answer until the client or the
        emulator leaves), "redirect" (to `location`), "body" (`body` as text/html with `status` 200, as a captive
        portal's). With the answer: "move" (then main gets a new commit, of `files`, or of one file more),
        "endless" (a Link to a next page, always). To a body that is sent, and to nothing else: "cut" (closed after
        `after_bytes`), "slow" (`bytes_per_s`), "corrupt" (the byte at `after_bytes`, or the first, is changed),
        "no_range" (200 and the whole file). The paths of LFS bytes start with `/cdn/`.
        """
        self._faults.add(
            Fault(
                kind,
                re.compile(path),
                method,
                times,
                after_bytes,
                status,
                retry_after,
                delay_s,
                bytes_per_s,
                location,
                body,
                headers,
                files,
            )
        )

    def clear_faults(self) -> None:
        """No further faults."""
        self._faults.clear()

    def _move(self, fault: Fault, request: Request) -> None:
        repo = self._api.repo_in(request.path)
        if repo is None:
            raise ValueError(f"the fault 'move' met {request.path}, which is about no repo")
        files = fault.files if fault.files is not None else _one_more(repo)
        commit = commit_of(repo.repo_id, files, date=_DATE, title="Move", parent=repo.main)
        repo.move("main", commit)
        self._api.changed()


def _one_more(repo: Repo) -> dict[str, Content]:
    return {**repo.main.blobs, f"moved-{len(repo.commits)}.txt": b"moved\n"}


def _main() -> None:
    parser = argparse.ArgumentParser(description="Serve an emulated Hub until interrupted.")
    parser.add_argument("--listing", action="store_true", help="the real listing: names and sizes, no weights")
    parser.add_argument("--tags", choices=("all", "old", "none"), default="old", help="which quants name their base")
    parser.add_argument("--copies", type=int, default=0, help="repeat the listing under so many other owners")
    parser.add_argument("--headers", action="store_true", help="true headers before the zeros of the listing's GGUFs")
    parser.add_argument("--folder", type=Path, action="append", default=[], help="ORG/NAME/files with real bytes")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    options = parser.parse_args()
    with HubEmulator(port=options.port) as hub:
        if options.listing:
            hub.add_listing(tags=options.tags, copies=options.copies, headers=options.headers)
        for folder in options.folder:
            hub.add_folder(folder)
        print(hub.endpoint, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    _main()
