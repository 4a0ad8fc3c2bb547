"""Facts about names: other names, sizes, old ids, closed models."""

import tomllib
from importlib.resources import files

import pytest

from qrun.aliases import id_of_alias, known_size, maker_of_closed, old_ids, other_names, todays_id, todays_name
from qrun.name_match import is_same_model
from qrun.name_words import is_size, joined, tokens

DATA = tomllib.loads((files("qrun") / "data" / "aliases.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["Devstral Small 1.1", "devstral-small:1.1", "devstral_small-1.1"])
def test_another_name_in_any_spelling_is_its_model(name):
    """Mistral numbers in its notes what it dates in the ids."""
    assert id_of_alias(name) == "mistralai/Devstral-Small-2507"


def test_an_id_is_no_other_name():
    """Whoever writes an organisation means that repo."""
    assert id_of_alias("somebody/devstral-small-1.1") is None
    assert id_of_alias("llama 3 8b") is None


def test_a_repo_of_before_leads_to_today_s_and_back():
    """Repos and organisations were renamed; tags and quants keep the old names."""
    assert todays_id("meta-llama/Meta-Llama-3.1-8B") == "meta-llama/Llama-3.1-8B"
    assert todays_id("THUDM/GLM-4-9B") == "zai-org/GLM-4-9B"
    assert todays_id("Qwen/Qwen3-8B") == "Qwen/Qwen3-8B"
    assert todays_id("bare") == "bare"
    assert old_ids("zai-org/GLM-4-9B") == ("THUDM/GLM-4-9B",)
    assert old_ids("nvidia/Nemotron-Orchestrator-8B") == ("nvidia/Orchestrator-8B",)
    assert id_of_alias("orchestrator 8b") == todays_name("Orchestrator-8B") == "nvidia/Nemotron-Orchestrator-8B"
    assert todays_name("Meta-Llama-3.1-8B") is None  # the same words as today's


def test_sizes_and_other_names_are_known_by_id():
    """For names that have no size of their own."""
    assert known_size("microsoft/phi-4") == "14b"
    assert known_size("Qwen/Qwen3-8B") is None
    assert other_names("datalab-to/chandra") == ("chandra ocr",)


@pytest.mark.parametrize(
    ("name", "maker"),
    [("gpt-4o", "OpenAI"), ("claude opus 4.6", "Anthropic"), ("Gemini 3 Pro", "Google"), ("gpt-oss-40b", None),
     ("qwen3", None), ("qwen claude distill", None)],
)  # fmt: skip  # a table
def test_a_closed_model_names_its_maker(name, maker):
    """Not what was distilled from it, nor an open model with a like name."""
    assert maker_of_closed(name) == maker


def test_no_other_name_spells_its_model_or_stands_twice():
    """The file holds what no rule finds, and each name means one model."""
    names = [name for found in DATA["names"].values() for name in found]
    needless = [name for one, found in DATA["names"].items() for name in found if name == one.partition("/")[2].lower()]

    assert len({joined(tokens(name)) for name in names}) == len(names)
    assert not needless
    assert all("/" in one for table in ("names", "renamed") for one in DATA[table])


def test_sizes_are_sizes_and_of_names_without_one():
    """One for each id."""
    ids = [one for found in DATA["sizes"].values() for one in found]

    assert len(set(ids)) == len(ids)
    assert all(is_size(size) or size == "1t" for size in DATA["sizes"])
    assert is_same_model("phi 4 14b", "microsoft/phi-4")


def test_no_other_name_spells_another_model():
    """`command r+` would, were its plus no word."""
    ids = {*DATA["names"], *DATA["renamed"], *(one for found in DATA["sizes"].values() for one in found)}
    spelled = {joined(tokens(one.rpartition("/")[2])): one for one in ids}
    meant = {joined(tokens(name)): one for one, found in DATA["names"].items() for name in found}

    assert {name: one for name, one in meant.items() if spelled.get(name, one) != one} == {}
