"""Several questions to the Hub at once, their answers kept by repo: one `run` is one round trip deep.

A repo that is closed to us is an answer, not an error: a gated repo must not block the open ones.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qrun.hub_candidates import parsed_config
from qrun.hub_client import HubClient
from qrun.hub_errors import AccessDenied, TokenRefused
from qrun.hub_info import RepoInfo, RepoListing
from qrun.hub_search import Query

__all__ = ["Ask", "Gathered"]

_MAX_CONFIG_BYTES = 4 * 2**20

Ask = Callable[[], None]


class Gathered:
    """What the Hub said in one decision. Not there, or closed: no entry."""

    def __init__(self, client: HubClient) -> None:
        self._client = client
        self._calls_before = client.n_calls
        self.depth = 0  # round trips so far
        self.listings: dict[Query, tuple[RepoListing, ...]] = {}
        self.infos: dict[tuple[str, str | None], RepoInfo] = {}  # by repo_id and revision as they were asked for
        self.branches: dict[str, Mapping[str, str]] = {}
        self.configs: dict[tuple[str, str], Mapping[str, Any]] = {}  # by repo_id and commit
        self.denied: dict[str, AccessDenied] = {}

    @property
    def n_calls(self) -> int:
        """API requests of this decision so far."""
        return self._client.n_calls - self._calls_before

    def run(self, asks: Sequence[Ask]) -> None:
        """Send them all at once. Raises HubUnreachable, TokenRefused."""
        if asks:
            self.depth += 1
            self._client.together(asks)

    def listing(self, query: Query) -> Ask:
        """The repos that a query finds."""
        words, tags = query

        def ask() -> None:
            self.listings[query] = self._client.models(search=words or None, tags=tags)

        return ask

    def info(self, repo_id: str, revision: str | None = None) -> Ask:
        """A repo's files."""

        def ask() -> None:
            found = self._client.repo(repo_id, revision)
            if found is not None:
                self.infos[repo_id, revision] = found

        return self._unless_closed(repo_id, ask)

    def refs(self, repo_id: str) -> Ask:
        """A repo's branches."""

        def ask() -> None:
            self.branches[repo_id] = self._client.branches(repo_id)

        return self._unless_closed(repo_id, ask)

    def config(self, repo_id: str, commit: str, path: str) -> Ask:
        """A repo's config.json."""

        def ask() -> None:
            content = self._client.small_file(repo_id, commit, path, most_bytes=_MAX_CONFIG_BYTES)
            if (config := parsed_config(content)) is not None:
                self.configs[repo_id, commit] = config

        return self._unless_closed(repo_id, ask)

    def opened(self, repo_id: str, commit: str, path: str) -> Ask:
        """Whether a gated repo's files are open to us: a byte of one is read."""

        def ask() -> None:
            with self._client.ranged(repo_id, commit, path, 0, 1) as pieces:
                next(pieces, b"")

        return self._unless_closed(repo_id, ask)

    def _unless_closed(self, repo_id: str, ask: Ask) -> Ask:
        def guarded() -> None:
            try:
                ask()
            except TokenRefused:
                raise
            except AccessDenied as denied:
                self.denied[repo_id] = denied

        return guarded
