"""`qrun search`: bases for some words, nearest first, each with what would be chosen for this machine."""

import json

import pytest

from hub_emulator import HubEmulator
from qrun.config import read_config
from qrun.errors import ModelNotFound
from qrun.search import bases_on_hub, look_at
from tiny_gguf import write_tiny_gguf
from tiny_hub import command, environ_of


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Four bases: two official with quants, one of nobody known, one without any weights."""
    folder = tmp_path_factory.mktemp("files")
    quants = {quant: write_tiny_gguf(folder / f"{quant}.gguf", tensor_type=quant) for quant in ("Q8_0", "Q4_0")}

    def files(name):
        return {f"{name}-{quant}.gguf": path for quant, path in quants.items()}

    with HubEmulator() as hub:
        for base, downloads in (
            ("Qwen/Tiny-1B-Instruct", 500),
            ("Qwen/Tiny-2B-Instruct", 900),
            ("who/Tiny-1B-Odd", 5000),
        ):
            hub.add_repo(base, {"README.md": b"#"}, downloads=downloads, gated="manual" if "2B" in base else False)
            name = base.rpartition("/")[2]
            hub.add_repo(f"bartowski/{name}-GGUF", files(name), base_model=base, relation="quantized", downloads=10)
        hub.add_repo("Qwen/Tiny-3B", {"README.md": b"#"}, downloads=50)
        yield hub


@pytest.fixture
def environ(hub, tmp_path):
    """The variables of a user who has nothing yet."""
    return environ_of(hub, tmp_path)


@pytest.fixture
def qrun(qrun_exe, environ):
    """Runs the installed command."""
    return command(qrun_exe, environ)


def ids(words, environ):
    return [base.repo_id for base in bases_on_hub(words, read_config(environ).hub)]


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("tiny 1b", "Qwen/Tiny-1B-Instruct"),
        ("Tiny-1B-Instruct", "Qwen/Tiny-1B-Instruct"),
        ("qwen tiny", "Qwen/Tiny-2B-Instruct"),
        ("odd tiny", "who/Tiny-1B-Odd"),
    ],
)
def test_official_bases_come_first_then_the_most_downloaded(environ, words, first):
    """Words in any order; of names with a size those that say little more."""
    assert ids(words, environ)[0] == first


def test_every_word_must_be_there(environ):
    """A base that lacks one of the words is not found by the others."""
    assert ids("tiny 2b", environ) == ["Qwen/Tiny-2B-Instruct"]


def test_a_base_is_listed_once_with_all_its_downloads(environ):
    """Its own repo and its quants are one row."""
    found = {base.repo_id: base for base in bases_on_hub("tiny 2b", read_config(environ).hub)}

    assert found["Qwen/Tiny-2B-Instruct"].downloads == 910
    assert found["Qwen/Tiny-2B-Instruct"].n_quants == 1
    assert found["Qwen/Tiny-2B-Instruct"].gated is True


def test_each_base_has_the_quant_that_fits_here(qrun):
    """JSON for programs: the choice with its repo, commit and size; a gated base is no obstacle."""
    done = qrun("search", "tiny", "2b", "--json")
    document = json.loads(done.stdout)

    (found,) = document["bases"]
    assert (document["words"], document["n_more"], found["gated"]) == ("tiny 2b", 0, True)
    assert found["chosen"]["repo_id"] == "bartowski/Tiny-2B-Instruct-GGUF"
    assert len(found["chosen"]["revision"]) == 40
    assert found["chosen"]["size_bytes"] > 0
    assert found["why_not"] is None


def test_a_base_of_which_nothing_can_be_run_says_why(qrun):
    """No quant, no weights: the row stands, with the reason in place of a choice."""
    found = json.loads(qrun("search", "tiny", "3b", "--json").stdout)["bases"]

    assert [one["repo_id"] for one in found] == ["Qwen/Tiny-3B"]
    assert found[0]["chosen"] is None
    assert "Qwen/Tiny-3B" in found[0]["why_not"]


def test_people_see_a_table_and_how_many_were_left_out(qrun):
    """`--limit` bounds what is looked at closely; the rest is counted."""
    done = qrun("search", "tiny", "--limit", "1")

    lines = done.stdout.splitlines()
    assert lines[0].startswith("Base model")
    assert len(lines) == 3
    assert lines[-1] == "3 more: give more words, or --limit."


def test_a_search_keeps_no_decision(qrun, environ, tmp_path):
    """It is a glance: nothing is pinned by it."""
    qrun("search", "tiny")

    assert not (tmp_path / "data" / "pins").exists()


def test_offline_what_is_stored_is_searched(qrun, hub):
    """The same words among what was pulled, whose card is not stored: so by its bare name. No request is made."""
    assert qrun("pull", "Tiny-1B-Instruct").returncode == 0
    hub.requests.clear()

    done = qrun("search", "tiny", "--offline", "--json")

    assert [one["repo_id"] for one in json.loads(done.stdout)["bases"]] == ["Tiny-1B-Instruct"]
    assert json.loads(done.stdout)["bases"][0]["chosen"]["stored"] is True
    assert hub.requests == []


@pytest.mark.parametrize(
    ("args", "code", "word"),
    [(["nosuchword"], 3, "nosuchword"), (["tiny", "--offline"], 3, "stored"), ([], 2, "WORDS")],
)
def test_what_cannot_be_searched_is_one_line(qrun, args, code, word):
    """Exit 3 where nothing answers, 2 without words."""
    done = qrun("search", *args)

    assert done.returncode == code
    assert done.stderr.count("\n") == 1
    assert word in done.stderr


def test_with_the_hub_down_it_is_exit_5(qrun, hub):
    """One line, as everywhere."""
    hub.fault("reset")
    done = qrun("search", "tiny")
    hub.clear_faults()

    assert done.returncode == 5
    assert done.stderr.count("\n") == 1


def test_what_a_decision_raises_reaches_the_caller(environ):
    """A refusal that concerns the whole search (the Hub went down in the middle) is not hidden in a row."""

    def down(base):
        raise ModelNotFound(base, "nowhere")

    with pytest.raises(ModelNotFound):
        look_at(bases_on_hub("tiny", read_config(environ).hub), down)
