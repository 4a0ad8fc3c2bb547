"""How well names find models over the listing: hand-made answers (data/hub_names.jsonl) held against what qrun says.

The emulated Hub serves the real listing; how many of the relation tags it serves is asked for. Measured are bases by
query, repos by base, and that what must not match does not.
"""

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from hub_data import Tags, listing
from hub_emulator import HubEmulator
from qrun.errors import AmbiguousModel, ModelNotFound, NotAModel
from qrun.hub_client import HubClient
from qrun.hub_gather import Gathered
from qrun.hub_lookup import Found, look_up
from qrun.hub_settings import HubSettings
from qrun.names import parse_model
from qrun.quant import kind_of_file

__all__ = ["Answer", "Measured", "measure"]

DATA = Path(__file__).parent / "data"
_MOST_OFFERED = 5  # of the nearest names that a message has


@dataclass(frozen=True)
class Answer:
    """What a query gave: a base with its repos and warnings, choices, or the nearest names."""

    kind: str  # found | ambiguous | not_found | no_weights
    base: str | None = None
    repos: frozenset[str] = frozenset()
    names: tuple[str, ...] = ()
    warned: bool = False


@dataclass
class Measured:
    """Counts over all rows. `problems`: each wrong row in words."""

    right: int = 0
    wrong: int = 0
    not_found: int = 0
    no_weights: int = 0  # the right base, of which the listing has only projectors or matrices
    hits: int = 0
    false_hits: int = 0
    misses: int = 0
    unseen: int = 0  # of the misses: repos whose listed files are no model's
    negatives: int = 0
    negatives_matched: int = 0
    odd: int = 0
    odd_right: int = 0
    nearest_whole: int = 0  # of the not_found: every name that is to be offered is
    nearest_asked: int = 0
    most_calls: int = 0
    most_depth: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def precision(self) -> float:
        """Of the repos that were taken, the share that is labelled as the base's."""
        return self.hits / max(1, self.hits + self.false_hits)

    @property
    def recall(self) -> float:
        """Of the labelled repos, the share that was taken by every query of its base, on the mean."""
        return self.hits / max(1, self.hits + self.misses)


def measure(tags: Tags, folder: Path, *, bases: bool = True, every: int = 1) -> Measured:
    """All rows, or one in `every`. Without `bases` no unquantized repo is served, so only repos can be compared."""
    rows = [json.loads(line) for line in (DATA / "hub_names.jsonl").read_text(encoding="utf-8").splitlines()[1:]]
    known = {row["base_repo_id"]: row for row in _bases()}
    result = Measured()
    with HubEmulator() as hub:
        hub.add_listing(tags=tags)
        if not bases:
            _without_bases(hub)
        with _asker(hub, folder, result) as ask:
            gold = [row for row in rows if "queries" in row][::every]
            for row in gold:
                _hold_base(result, row, known[row["base"]], [ask(query) for query in row["queries"]], named=bases)
            for row in rows:
                if "not_of" in row:
                    _hold_negative(result, row, ask(row["query"]))
                elif "expect" in row and bases:
                    _hold_odd(result, row, ask(row["query"]))
    return result


@contextmanager
def _asker(hub: HubEmulator, folder: Path, result: Measured) -> Iterator:
    settings = HubSettings(folder / "hub", folder / "listings", folder / "no-token", endpoint=hub.endpoint, retry_s=2)
    client = HubClient(settings)

    def ask(query: str) -> Answer:
        gathered = Gathered(client)
        try:
            return _answer(look_up(parse_model(query), gathered, "the Hub"))
        except AmbiguousModel as many:
            return Answer("ambiguous", names=tuple(many.nearest))
        except ModelNotFound as missing:
            return Answer("not_found", names=tuple(missing.nearest))
        except NotAModel as empty:
            return Answer("no_weights", base=empty.path)
        finally:
            result.most_calls = max(result.most_calls, gathered.n_calls)
            result.most_depth = max(result.most_depth, gathered.depth)

    try:
        yield ask
    finally:
        client.close()


def _answer(found: Found) -> Answer:
    return Answer("found", found.base, frozenset(repo.repo_id for repo in found.repos), warned=bool(found.warnings))


def _hold_base(result: Measured, row: Mapping, known: Mapping, answers: Sequence[Answer], *, named: bool) -> None:
    ids = {row["base"], *known.get("aliases", ())}
    labelled, seen = set(known["repos"]), _quants()
    for query, answer in zip(row["queries"], answers, strict=True):
        _hold_query(result, query, answer, ids, named=named)
        taken = (answer.repos & set(seen)) - ids - set(row.get("doubtful", ()))
        missed = labelled - taken
        result.hits += len(taken & labelled)
        result.false_hits += len(taken - labelled)
        result.misses += len(missed)
        result.unseen += sum(not seen[repo] for repo in missed)
        result.problems += [f"{query!r} takes {repo}" for repo in sorted(taken - labelled)]
        result.problems += [f"{query!r} misses {repo}" for repo in sorted(missed)]


def _hold_query(result: Measured, query: str, answer: Answer, ids: set[str], *, named: bool) -> None:
    if answer.base in ids or (answer.base and not named):
        result.right += answer.kind == "found"
        result.no_weights += answer.kind == "no_weights"
        return
    result.wrong += answer.kind == "found"
    result.not_found += answer.kind != "found"
    result.problems.append(f"{query!r} is {answer.kind} {answer.base or answer.names[:3]}, not {min(ids)}")


def _hold_negative(result: Measured, row: Mapping, answer: Answer) -> None:
    result.negatives += 1
    if row["repo"] in answer.repos:
        result.negatives_matched += 1
        result.problems.append(f"{row['query']!r} takes {row['repo']}: {row['why']}")


def _hold_odd(result: Measured, row: Mapping, answer: Answer) -> None:
    right = _is_as_expected(row, answer)
    result.odd += 1
    result.odd_right += right
    if nearest := row.get("nearest"):
        result.nearest_asked += 1
        result.nearest_whole += set(nearest) <= set(answer.names[:_MOST_OFFERED])
    if not right:
        result.problems.append(f"{row['query']!r} is {answer.kind} {answer.base or answer.names[:3]}: {row['note']}")


def _is_as_expected(row: Mapping, answer: Answer) -> bool:
    if row["expect"] == "ambiguous":
        if answer.kind == "found":
            return answer.base == row.get("preferred") and answer.warned
        if not row["choices"]:  # to be refused
            return answer.kind != "found"
        return answer.kind == "ambiguous" and set(row["choices"]) <= set(answer.names)
    offered = answer.names[:_MOST_OFFERED]
    return answer.kind == "not_found" and (bool(set(row["nearest"]) & set(offered)) if row["nearest"] else not offered)


@lru_cache(maxsize=1)
def _quants() -> Mapping[str, bool]:
    """The repos of the listing itself, and whether any of their listed files is a model's."""
    text = gzip.decompress((DATA / "hub" / "listing.jsonl.gz").read_bytes()).decode()
    rows = [json.loads(line) for line in text.splitlines()]
    return {row["repo_id"]: any(_is_model(path) for path, _ in row["files"]) for row in rows}


def _is_model(path: str) -> bool:
    return path.endswith(".safetensors") or (path.lower().endswith(".gguf") and kind_of_file(path) == "model")


def _bases() -> list[dict]:
    return [json.loads(line) for line in (DATA / "hub" / "bases.jsonl").read_text(encoding="utf-8").splitlines()]


def _without_bases(hub: HubEmulator) -> None:
    for one in listing():
        if one.is_base and one.repo_id not in _quants():
            hub.remove_repo(one.repo_id)
