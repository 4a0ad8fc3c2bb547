"""What lies in the repos that a MODEL means: their files, branches and configs, asked for in two round trips at most.

Which repos and branches are worth a call is decided here; how many were passed over is said.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from qrun.hub_candidates import RepoState, config_path, is_weights, label_of_branch
from qrun.hub_gather import Ask, Gathered
from qrun.hub_info import RepoListing
from qrun.hub_lookup import Found, has_branches
from qrun.hub_search import HubRepo, quants_of, read_listing, worth_asking
from qrun.hub_shapes import KnownShape, known_shape
from qrun.model import Format
from qrun.quant import label_bits

__all__ = ["MOST_CALLS", "Looked", "look_into"]

MOST_CALLS = 60  # API requests of one decision (DESIGN section 6)
_MOST_DEPTH = 4  # round trips of one decision (DESIGN section 6)
_MOST_REPOS = 30  # asked for their files
_MOST_BRANCHES = 12  # of all EXL repos together
_MOST_CONFIGS_OF_GGUF = 3  # of repos whose format is known without: read for the shape alone
# Whose config.json tells the shape best: the plain weights', then copies that keep every dimension in it.
_SHAPE_ORDER: tuple[Format, ...] = ("safetensors", "mlx", "fp8", "bnb", "awq", "gptq", "exl3", "exl2", "gguf")


@dataclass(frozen=True, slots=True)
class Looked:
    """Every repo at each branch that counts, the base's shape where a config.json told it, and what was left out."""

    states: tuple[RepoState, ...]
    shape: KnownShape | None
    warnings: tuple[str, ...] = ()


def look_into(found: Found, gathered: Gathered) -> Looked:
    """Ask for the files of what was found. Raises HubUnreachable, TokenRefused."""
    into = _Into(found, gathered)
    return into.alone() if found.alone else into.all_of_base()


class _Into:
    """One look into the repos of a base."""

    def __init__(self, found: Found, gathered: Gathered) -> None:
        self._found = found
        self._gathered = gathered
        self._asks_refs = True
        self._n_branches = 0
        self._n_left_out = 0
        self._kin: list[HubRepo] = []  # looked at for the shape alone

    def all_of_base(self) -> Looked:
        """The repos that are worth a call."""
        found, gathered = self._found, self._gathered
        most = min(_MOST_REPOS, MOST_CALLS - gathered.n_calls - _MOST_BRANCHES)
        chosen = worth_asking(found.base, found.repos, max(1, most))
        known_early = {repo.repo_id for repo in chosen if repo.repo_id in gathered.branches}
        # GGUF finalists take one more round, for their headers: then branches that are not known yet would be too late.
        rounds_left = _MOST_DEPTH - gathered.depth - any(repo.format == "gguf" for repo in chosen)
        self._asks_refs = rounds_left > 1
        gathered.run([ask for repo in chosen for ask in self._asks(repo)] + self._shape_asks(chosen))
        late = [ask for repo in chosen if repo.repo_id not in known_early for ask in self._branch_asks(repo)]
        if rounds_left > 1 and not gathered.configs:  # EXL repos keep theirs on the branches
            late += [ask for repo in chosen if repo.repo_id in known_early for ask in self._branch_config(repo)][:1]
        gathered.run(late)
        states = tuple(state for repo in chosen for state in self._states(repo))
        return Looked(
            states,
            self._shape([*chosen, *self._kin]),
            self._left_out(len(found.repos) - len({state.info.repo_id for state in states})),
        )

    def alone(self) -> Looked:
        """The one repo, and for its shape alone the base and what else is made from it."""
        (repo,), gathered, base = self._found.repos, self._gathered, self._found.base
        asks = [*self._branch_asks(repo), *self._opening(repo)]
        own = self._config_ask(repo)
        relation = ("", (f"base_model:quantized:{base}",))
        if own:
            asks.append(own)
        elif "/" in base:
            asks += [gathered.info(base), gathered.listing(relation)]
        gathered.run(asks)
        relatives = [] if own else self._relatives(gathered.listings.get(relation, ()))
        configs = [ask for one in relatives if (ask := self._config_ask(one))]
        gathered.run(configs or self._branch_config(repo))
        return Looked(tuple(self._states(repo)), self._shape([repo, *relatives]), self._left_out(0))

    def _asks(self, repo: HubRepo) -> Iterator[Ask]:
        """What of one repo is asked in the first round."""
        gathered, repo_id = self._gathered, repo.repo_id
        if not has_branches(repo) or any(map(is_weights, repo.listing.paths or ())):
            yield gathered.info(repo_id)
        if repo_id in gathered.branches:
            yield from self._branch_asks(repo)
        elif has_branches(repo) and self._asks_refs:
            yield gathered.refs(repo_id)
        if repo.format != "gguf" and (ask := self._config_ask(repo)):
            yield ask
        yield from self._opening(repo)

    def _opening(self, repo: HubRepo) -> Iterator[Ask]:
        weights = next(filter(is_weights, repo.listing.paths or ()), None)
        if repo.listing.gated and weights:
            yield self._gathered.opened(repo.repo_id, repo.listing.commit or "main", weights)

    def _branch_asks(self, repo: HubRepo) -> list[Ask]:
        """One for each branch that is a width, the widest first, as far as the calls reach."""
        names = self._gathered.branches.get(repo.repo_id, {}) if has_branches(repo) else {}
        widths = sorted(filter(label_of_branch, names), key=_bits, reverse=True)
        asked = widths[: _MOST_BRANCHES - self._n_branches]
        self._n_branches += len(asked)
        self._n_left_out += len(widths) - len(asked)
        return [self._gathered.info(repo.repo_id, name) for name in asked]

    def _config_ask(self, repo: HubRepo) -> Ask | None:
        listing = repo.listing
        path = config_path(listing.paths or ())
        return self._gathered.config(repo.repo_id, listing.commit, path) if path and listing.commit else None

    def _branch_config(self, repo: HubRepo) -> list[Ask]:
        """The config.json of a branch: all branches of a repo are one model."""
        for state in self._states(repo):
            if path := config_path(file.path for file in state.info.files):
                return [self._gathered.config(repo.repo_id, state.info.commit, path)]
        return []

    def _shape_asks(self, chosen: Sequence[HubRepo]) -> list[Ask]:
        """The configs that are read for the shape alone: of chosen GGUF repos; failing others, of relatives."""
        with_config = [repo for repo in chosen if config_path(repo.listing.paths or ()) and not repo.listing.gated]
        asked = [repo for repo in with_config if repo.format == "gguf"][:_MOST_CONFIGS_OF_GGUF]
        if not any(repo.format != "gguf" for repo in with_config):
            rows = chain.from_iterable(self._gathered.listings.values())
            self._kin = self._relatives(list({row.repo_id: row for row in rows}.values()))
            asked += [repo for repo in self._kin if repo.repo_id not in {one.repo_id for one in chosen}]
        return [ask for repo in asked if (ask := self._config_ask(repo))]

    def _relatives(self, rows: Sequence[RepoListing]) -> list[HubRepo]:
        """The base, and of the repos in `rows` the best few of it that bring a config.json."""
        base, gathered = self._found.base, self._gathered
        info = gathered.infos.get((base, None))
        own = [read_listing(info)] if info else []
        quants = quants_of(base, map(read_listing, rows))
        ranked = worth_asking(base, quants, len(quants))
        others = [repo for repo in ranked if config_path(repo.listing.paths or ()) and not repo.listing.gated]
        return [*own, *sorted(others, key=_shape_rank)[:_MOST_CONFIGS_OF_GGUF]]

    def _states(self, repo: HubRepo) -> list[RepoState]:
        """The repo at every revision that was asked for."""
        gathered, repo_id = self._gathered, repo.repo_id
        config = gathered.configs.get((repo_id, repo.listing.commit or ""))
        at = {revision or "main": info for (asked, revision), info in gathered.infos.items() if asked == repo_id}
        denied = repo_id in gathered.denied
        return [RepoState(at[name], name, config, repo.format, denied) for name in sorted(at)]

    def _shape(self, repos: Sequence[HubRepo]) -> KnownShape | None:
        """The first that a config.json tells: the base's own, then copies'."""
        base = self._found.base.casefold()
        for repo in sorted(repos, key=lambda repo: (repo.repo_id.casefold() != base, _shape_rank(repo))):
            for (repo_id, _), config in self._gathered.configs.items():
                if repo_id == repo.repo_id and (known := known_shape(config)):
                    return known
        return None

    def _left_out(self, n_repos: int) -> tuple[str, ...]:
        parts = []
        if n_repos:
            parts.append(f"{n_repos} more {'repo' if n_repos == 1 else 'repos'}")
        if self._n_left_out:
            parts.append(f"{self._n_left_out} more branches")
        if not parts:
            return ()
        return (f"Not looked into: {' and '.join(parts)} of {self._found.base}, the less used and less known.",)


def _bits(branch: str) -> tuple[float, str]:
    return label_bits(label_of_branch(branch) or "") or 0.0, branch


def _shape_rank(repo: HubRepo) -> int:
    return _SHAPE_ORDER.index(repo.format)
