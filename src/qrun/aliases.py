"""What the names of models mean that their ids do not tell: other names, sizes, old ids, and models of no repo.

Pure. All of it is data (`data/aliases.toml`, which names its sources): names are facts that no rule gives.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from qrun.name_words import VARIANTS, joined, tokens

__all__ = ["id_of_alias", "known_size", "maker_of_closed", "old_ids", "other_names", "todays_id", "todays_name"]


def id_of_alias(name: str) -> str | None:
    """The model that people mean by a name which its id of today does not spell; None where it is no such name."""
    return None if "/" in name else _aliases().get(joined(tokens(name)))


def known_size(model_id: str) -> str | None:
    """The size (`14b`) of a model whose name has none; None where it is not known here."""
    return _sizes().get(model_id.casefold())


def other_names(model_id: str) -> tuple[str, ...]:
    """What else the model is called: `chandra ocr` of datalab-to/chandra."""
    return tuple(_data()["names"].get(model_id, ()))


def todays_id(model_id: str) -> str:
    """The id under which a repo stands today, where it or its organisation was renamed."""
    if renamed := _renamed().get(model_id.casefold()):
        return renamed
    organisation, slash, name = model_id.rpartition("/")
    return f"{_organisations().get(organisation.casefold(), organisation)}{slash}{name}"


def old_ids(model_id: str) -> tuple[str, ...]:
    """The ids that a repo of today had before: the tags of its older quants name those."""
    organisation, _, name = model_id.rpartition("/")
    olds = [old for new, found in _data()["renamed"].items() if new.casefold() == model_id.casefold() for old in found]
    olds += [f"{old}/{name}" for old, new in _data()["organisations"].items() if new == organisation]
    return tuple(olds)


def todays_name(name: str) -> str | None:
    """The id of today for a bare name that a renamed repo had; None where none had it."""
    return _old_names().get(joined(tokens(name)))


def maker_of_closed(name: str) -> str | None:
    """Who makes the model of that name and publishes no weights of it; None where it is not such a one."""
    data = _data()["closed"]
    words = {word for word in tokens(name) if word.isalpha()} - VARIANTS - set(data["further_words"])
    return data["makers"].get(words.pop()) if len(words) == 1 else None


@cache
def _data() -> Mapping[str, Any]:
    return tomllib.loads((files("qrun") / "data" / "aliases.toml").read_text(encoding="utf-8"))


@cache
def _aliases() -> Mapping[str, str]:
    return {**_old_names(), **{joined(tokens(name)): one for one, names in _data()["names"].items() for name in names}}


@cache
def _sizes() -> Mapping[str, str]:
    return {model.casefold(): size for size, models in _data()["sizes"].items() for model in models}


@cache
def _renamed() -> Mapping[str, str]:
    return {old.casefold(): new for new, olds in _data()["renamed"].items() for old in olds}


@cache
def _old_names() -> Mapping[str, str]:
    """Old bare names that are not names of today: `Orchestrator-8B`."""
    today = {joined(tokens(new.rpartition("/")[2])) for new in _data()["renamed"]}
    names = {joined(tokens(old.rpartition("/")[2])): new for new, olds in _data()["renamed"].items() for old in olds}
    return {name: new for name, new in names.items() if name not in today}


@cache
def _organisations() -> Mapping[str, str]:
    return {old.casefold(): new for old, new in _data()["organisations"].items()}
