"""Which repos of the Hub a MODEL means: one alone, or all that hold the weights of a base.

At most two round trips: the name or id, then the base's quants; where nothing was found, wider searches instead.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from qrun.aliases import id_of_alias, maker_of_closed, old_ids, todays_id
from qrun.errors import ModelNotFound, NotAModel
from qrun.hub_candidates import bpw_in_name
from qrun.hub_gather import Ask, Gathered
from qrun.hub_info import RepoInfo
from qrun.hub_search import (
    ChosenBase,
    HubRepo,
    Query,
    choose_base,
    ids_of_base,
    quant_queries,
    quants_of,
    read_listing,
    search_queries,
    wider_queries,
    worth_asking,
)
from qrun.name_match import is_same_model
from qrun.names import ModelRef, nearest
from qrun.packed_name import base_names, has_known_organisation
from qrun.repo_match import distinct

__all__ = ["Found", "has_branches", "look_up"]

_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
_MOST_EARLY_REFS = 4
_SAYS_BITS = re.compile(r"int[2-8]|[2-8]-?bit", re.IGNORECASE)
_MAIN = (None, "main")


@dataclass(frozen=True, slots=True)
class Found:
    """The base and the repos to choose among. `alone`: the one repo is what was asked for, not a base."""

    base: str
    repos: tuple[HubRepo, ...]
    warnings: tuple[str, ...] = ()
    alone: bool = False


def look_up(model: ModelRef, gathered: Gathered, looked_in: str) -> Found:
    """The repos of `model`. Raises ModelNotFound, AmbiguousModel, NotAModel, AccessDenied, HubUnreachable."""
    alias = id_of_alias(model.name) if model.revision in _MAIN else None
    lookup = _Lookup(replace(model, name=alias) if alias else model, gathered, looked_in)
    return lookup.by_id() if _REPO_ID.fullmatch(alias or model.name) else lookup.by_name()


def has_branches(repo: HubRepo) -> bool:
    """Whether quants of it lie on branches: EXL's one for each width, GPTQ's where the name tells no bits."""
    if repo.format == "gptq":
        return _SAYS_BITS.search(repo.repo_id) is None
    return repo.format in ("exl2", "exl3") and bpw_in_name(repo.repo_id) is None


class _Lookup:
    """One MODEL and what the Hub said about it so far."""

    def __init__(self, model: ModelRef, gathered: Gathered, looked_in: str) -> None:
        self._model = model
        self._gathered = gathered
        self._looked_in = looked_in
        self._read: dict[str, HubRepo] = {}

    def by_id(self) -> Found:
        """The repo of that id where it is a quant, or its revision or file is asked for; else the quants of it."""
        model, gathered = self._model, self._gathered
        alone = model.revision not in _MAIN or model.file is not None or self._is_packed_by_name()
        asks = [gathered.info(model.name, model.revision)]
        asks += [gathered.refs(model.name)] if alone and model.revision is None else []
        if not alone:
            ids = (model.name, *old_ids(model.name))
            asks += self._listings((*quant_queries(ids), *search_queries(model.name)[:1]))
        gathered.run(asks)
        info = gathered.infos.get((model.name, model.revision)) or self._as_spelled()
        if info is None:
            return self._no_such_repo()
        repo = read_listing(info)
        is_own = not self._is_packed_by_name() and repo.repo_id in repo.bases
        if alone or (repo.packed and not is_own):
            gathered.infos[repo.repo_id, model.revision] = info
            return Found(repo.bases[0], (repo,), alone=True)
        return self._of_base(info, repo)

    def by_name(self) -> Found:
        """All repos of the base that the name means."""
        model = self._model
        if model.revision not in _MAIN:
            hint = "A revision is one of a repo: write ORG/NAME@REVISION."
            raise ModelNotFound(f"{model.name}@{model.revision}", self._looked_in, hint=hint)
        self._gathered.run(self._listings(search_queries(model.name)))
        if chosen := choose_base(model.text, model.name, self._repos()):
            return self._of_choice(chosen, chosen.repos or self._quants(ids_of_base(chosen.base, self._repos())))
        self._gathered.run(self._listings(wider_queries(model.name)))
        if chosen := choose_base(model.text, model.name, self._repos()):
            # What a wider search finds holds the quants by name; a third round would be one too many.
            return self._of_choice(chosen, chosen.repos or quants_of(chosen.base, self._repos()))
        raise self._not_found()

    def _of_choice(self, chosen: ChosenBase, repos: tuple[HubRepo, ...]) -> Found:
        if not repos:
            raise NotAModel(chosen.base, "no GGUF or safetensors weights of it were found.")
        return Found(chosen.base, repos, chosen.warnings)

    def _is_packed_by_name(self) -> bool:
        name = self._model.name
        return base_names(name)[0] != name.rpartition("/")[2]

    def _of_base(self, info: RepoInfo, repo: HubRepo) -> Found:
        """The quants of the repo that was asked for, and itself where it has weights."""
        model = self._model
        ids = (info.repo_id, *({model.name} - {info.repo_id}))
        # What was asked under the id of today is answered already.
        repos = self._quants(ids, also=ids[1:]) if len(ids) > 1 else quants_of(info.repo_id, self._repos())
        others = tuple(one for one in repos if one.repo_id != info.repo_id)
        if not repo.has_weights and not others:
            raise NotAModel(info.repo_id, "it holds no GGUF or safetensors weights, and no quants of it were found.")
        return Found(info.repo_id, (*((repo,) if repo.has_weights else ()), *others))

    def _no_such_repo(self) -> Found:
        """The quants of an id that only tags name, or that can only be meant; else what is not there is said."""
        model, gathered = self._model, self._gathered
        if denied := gathered.denied.get(model.name):
            raise denied
        if model.revision is not None:
            raise self._no_such_revision()
        wanted = todays_id(model.name)
        repos = quants_of(wanted, self._repos())
        named = [one for repo in repos for one in repo.bases if one.casefold() == wanted.casefold()]
        if repos and (named or has_known_organisation(wanted)):
            # NVIDIA's …-Instruct is …-Instruct-HF: the same organisation's repo of the same name is what was meant.
            rows = [one.repo_id for one in self._repos() if not one.packed]
            there = [repo_id for repo_id in rows if is_same_model(repo_id, wanted)]
            return Found((there or named or [wanted])[0], repos)
        if not repos:
            gathered.run(self._listings((*search_queries(model.name)[:1], *wider_queries(model.name))))
        raise self._not_found()

    def _no_such_revision(self) -> ModelNotFound:
        """The revision is not there, or the whole repo is not."""
        model, gathered = self._model, self._gathered
        gathered.run([gathered.info(model.name), gathered.refs(model.name)])
        if (model.name, None) not in gathered.infos:
            gathered.run(self._listings(search_queries(model.name)[:2]))
            return self._not_found()
        there = list(gathered.branches.get(model.name, {}))
        near = nearest(model.revision or "", there) or tuple(there[:5])
        return ModelNotFound(f"{model.name}@{model.revision}", self._looked_in, near)

    def _as_spelled(self) -> RepoInfo | None:
        """The repo where the Hub takes no other case of its id than its own."""
        model, gathered = self._model, self._gathered
        if model.name in gathered.denied:
            return None
        gathered.run(self._listings([(model.name.rpartition("/")[2], ())]))
        wanted = model.name.casefold()
        spelled = [one for one in self._rows() if one.casefold() == wanted and one != model.name]
        if not spelled:
            return None
        gathered.run([gathered.info(spelled[0], model.revision)])
        return gathered.infos.get((spelled[0], model.revision))

    def _quants(self, ids: Sequence[str], also: Sequence[str] = ()) -> tuple[HubRepo, ...]:
        """The repos of a base by all its ids, those found before and those that are found by relation and name."""
        known = quants_of(ids[0], self._repos(), also=also)
        early = worth_asking(ids[0], filter(has_branches, known), _MOST_EARLY_REFS)
        asks = [*self._listings(quant_queries(ids)), *(self._gathered.refs(repo.repo_id) for repo in early)]
        self._gathered.run(asks)
        return quants_of(ids[0], self._repos(), also=also)

    def _listings(self, queries: Iterable[Query]) -> list[Ask]:
        return [self._gathered.listing(query) for query in queries if query not in self._gathered.listings]

    def _rows(self) -> list[str]:
        return [row.repo_id for row in chain.from_iterable(self._gathered.listings.values())]

    def _repos(self) -> list[HubRepo]:
        for row in chain.from_iterable(self._gathered.listings.values()):
            if row.repo_id not in self._read:
                self._read[row.repo_id] = read_listing(row)
        return list(self._read.values())

    def _not_found(self) -> ModelNotFound:
        model = self._model
        if maker := maker_of_closed(model.name):
            hint = f"It looks like a model of {maker} whose weights are not published."
            return ModelNotFound(model.text, self._looked_in, hint=hint)
        near = nearest(model.name, distinct(repo.bases[0] for repo in self._repos()))
        hint = "" if near else "Check the name."
        return ModelNotFound(model.text, self._looked_in, near, hint=hint)
