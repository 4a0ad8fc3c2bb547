"""Repos of the emulated Hub: their commits, branches and tags, who may read them, and what a listing finds.

A commit is named by its content and its parent, as in git, so the same files give the same commit on every machine.
Commits stay reachable after a branch moved on.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from hub_emulator_blobs import Blob, blob_of
from qrun.model_card import parse_card

__all__ = ["Commit", "Content", "Files", "Repo", "Shelf", "commit_of"]

Content = bytes | Path | int | Blob
Files = Mapping[str, Content]
Gate = Literal[False, "auto", "manual"]


@dataclass(frozen=True)
class Commit:
    """One state of a repo: `blobs` by path."""

    sha: str
    blobs: Mapping[str, Blob]
    date: str
    title: str
    parent: "Commit | None" = None

    @cached_property
    def folders(self) -> frozenset[str]:
        """Every folder that holds a file, at any depth."""
        return frozenset(
            "/".join(parts[:n]) for p in self.blobs for parts in [p.split("/")] for n in range(1, len(parts))
        )


def commit_of(salt: str, files: Files, *, date: str, title: str, parent: Commit | None = None) -> Commit:
    """A commit that holds exactly `files`."""
    blobs = {path: blob_of(path, content, salt=salt) for path, content in sorted(files.items())}
    tree = "".join(f"{path}\0{blob.cache_key}\n" for path, blob in blobs.items())
    before = parent.sha if parent else ""
    named = hashlib.sha1(f"{salt}\0{before}\0{title}\0{tree}".encode(), usedforsecurity=False)
    return Commit(named.hexdigest(), blobs, date, title, parent)


@dataclass
class Repo:
    """One model repo. `readers`: the tokens that may read it where it is gated or private."""

    repo_id: str
    branches: dict[str, Commit]
    tagged: dict[str, Commit] = field(default_factory=dict)
    base_models: tuple[str, ...] = ()
    relation: str | None = None
    extra_tags: tuple[str, ...] = ()
    gated: Gate = False
    private: bool = False
    readers: frozenset[str] = frozenset()
    downloads: int = 0
    library: str | None = None
    created: str = "2023-01-01T00:00:00.000Z"
    gguf: Mapping[str, object] | None = None
    commits: dict[str, Commit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for commit in self.branches.values():
            self._keep(commit)

    @property
    def author(self) -> str:
        """The owner in front of the slash."""
        return self.repo_id.partition("/")[0]

    @property
    def main(self) -> Commit:
        """What a request without a revision means."""
        return self.branches["main"]

    def move(self, branch: str, commit: Commit) -> None:
        """Let `branch` be `commit` from now on."""
        self.branches[branch] = commit
        self._keep(commit)
        self.__dict__.pop("tags", None)
        self.__dict__.pop("card", None)

    def commit_at(self, revision: str) -> Commit | None:
        """By branch, tag, full ref or whole commit id. Whether the Hub takes a shortened id is uncertain: not here."""
        name = revision.removeprefix("refs/heads/")
        tag = revision.removeprefix("refs/tags/")
        return self.branches.get(name) or self.tagged.get(tag) or self.commits.get(revision)

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """What the Hub computes from the card and the files; relations are `base_model:[RELATION:]ORG/NAME`."""
        names = [path.lower() for commit in self.branches.values() for path in commit.blobs]
        formats = [kind for kind in ("gguf", "safetensors") if any(name.endswith("." + kind) for name in names)]
        bases, relation = self._relation
        related = [f"base_model:{base}" for base in bases]
        if relation:
            related += [f"base_model:{relation}:{base}" for base in bases]
        library = [self.library] if self.library else []
        return tuple(dict.fromkeys([*library, *formats, *self.extra_tags, *related, "region:us"]))

    @cached_property
    def card(self) -> dict[str, object]:
        """The head of the README as far as tests need it."""
        bases, relation = self._relation
        told = {"base_model": list(bases), "base_model_relation": relation, "library_name": self.library}
        return {key: value for key, value in told.items() if value} | {"tags": list(self.extra_tags)}

    @property
    def config(self) -> dict[str, object] | None:
        """The few keys that the Hub copies out of config.json."""
        blob = self.main.blobs.get("config.json")
        if blob is None:
            return None
        try:
            told = json.loads(blob.read())
        except ValueError:
            return None  # the Hub shows none either where config.json is no JSON
        kept = ("architectures", "model_type", "quantization_config")
        return {key: told[key] for key in kept if key in told} if isinstance(told, dict) else None

    @property
    def _relation(self) -> tuple[tuple[str, ...], str | None]:
        if self.base_models or "README.md" not in self.main.blobs:
            return self.base_models, self.relation
        card = parse_card(self.main.blobs["README.md"].read().decode(errors="replace"))
        return card.base_models, card.relation

    def _keep(self, commit: Commit | None) -> None:
        while commit and commit.sha not in self.commits:
            self.commits[commit.sha] = commit
            commit = commit.parent


class Shelf:
    """All repos, by id, with the old ids that lead to them, and the ways a listing narrows them down."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.moved: dict[str, str] = {}  # old id -> today's
        self._by_tag: dict[str, set[str]] | None = None

    def add(self, repo: Repo) -> None:
        """Put `repo` on the shelf, in the place of one of the same id."""
        self.repos[repo.repo_id] = repo
        self.changed()

    def changed(self) -> None:
        """Tags may be others than before."""
        self._by_tag = None

    def matching(
        self,
        *,
        search: str | None = None,
        author: str | None = None,
        tags: Iterable[str] = (),
        apps: Iterable[str] = (),
        gated: bool | None = None,
        token: str | None = None,
    ) -> list[Repo]:
        """The repos that meet every condition and that `token` may know of."""
        found: Iterable[Repo] = self._tagged([*tags, *_tags_of_apps(apps)])
        words = _words(search)
        return [
            repo
            for repo in found
            if (not repo.private or token in repo.readers)
            and (author is None or repo.author == author)
            and (gated is None or bool(repo.gated) == gated)
            and all(word in repo.repo_id.lower() for word in words)
        ]

    def _tagged(self, tags: list[str]) -> Iterable[Repo]:
        if not tags:
            return list(self.repos.values())  # other threads may add to it
        by_tag = self._by_tag
        if by_tag is None:
            by_tag = {}
            for repo in list(self.repos.values()):
                for tag in repo.tags:
                    by_tag.setdefault(tag, set()).add(repo.repo_id)
            self._by_tag = by_tag
        chosen = set.intersection(*(by_tag.get(tag, set()) for tag in tags))
        return [self.repos[repo_id] for repo_id in sorted(chosen)]


def _words(search: str | None) -> list[str]:
    """What a search looks for, without regard to case.

    huggingface_hub says: "a string that will be contained in the returned model ids". That several words may stand
    apart in the id ("llama 8b gguf") is what the real Hub's answers look like, not what it documents.
    """
    return re.split(r"\s+", search.strip().lower()) if search and search.strip() else []


def _tags_of_apps(apps: Iterable[str]) -> list[str]:
    """What an app can load, by tag. The Hub's own rule is not published; these two cover what qrun could ask for."""
    known = {"llama.cpp": "gguf", "ollama": "gguf", "lmstudio": "gguf", "jan": "gguf", "mlx-lm": "mlx"}
    return [known.get(app, f"app:{app}") for app in apps]
