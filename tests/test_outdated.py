"""`qrun outdated` and `qrun pull --update`: what moved is named, and replaced only when the new files are whole."""

import json
from contextlib import closing
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download, scan_cache_dir

from hub_emulator import HubEmulator
from qrun.config import read_config
from qrun.here import resolve_here
from qrun.request import Request
from tiny_hub import MODEL, REPO, command, environ_of, stock, two_quants


@pytest.fixture
def quants(tmp_path):
    """Two quants of the model as the repo has them."""
    return two_quants(tmp_path)


@pytest.fixture
def hub(quants):
    """A Hub with a base and its quants."""
    with HubEmulator() as hub:
        stock(hub, quants)
        yield hub


@pytest.fixture
def environ(hub, tmp_path):
    """The variables of a user who has nothing yet."""
    return environ_of(hub, tmp_path)


@pytest.fixture
def qrun(qrun_exe, environ):
    """Runs the installed command."""
    return command(qrun_exe, environ)


def behind(qrun):
    """What `qrun outdated --json` says."""
    done = qrun("outdated", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def pulled(qrun, *args):
    """The one path that `qrun pull` prints."""
    done = qrun("pull", *args)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_was_just_pulled_is_not_behind(qrun):
    """Nothing moved: both lists are empty, and people are told in a sentence."""
    pulled(qrun, MODEL)

    assert behind(qrun) == {"repos": [], "choices": []}
    assert qrun("outdated").stdout == "Nothing is behind.\n"


def test_a_repo_whose_commit_moved_is_named_with_both_commits(qrun, hub, quants):
    """A README that came in moves the commit; the choice is the same bytes, so only the repo is behind."""
    pulled(qrun, MODEL)
    before = hub.shelf.repos[REPO].main.sha
    after = hub.replace_files(REPO, quants | {"README.md": b"# New\n"})

    found = behind(qrun)

    assert found["repos"] == [{"repo_id": REPO, "ref": "main", "revision": before, "latest_revision": after}]
    assert found["choices"] == []


def test_a_choice_that_would_differ_is_named_with_the_reason(qrun, hub, quants):
    """The chosen file is gone from the repo: the new choice and why stand beside the old one."""
    path = pulled(qrun, MODEL)
    gone = path.rpartition("/")[2]
    hub.replace_files(REPO, {name: file for name, file in quants.items() if name != gone})

    found = behind(qrun)["choices"]

    assert [(one["model"], one["before"]["path"]) for one in found] == [(MODEL, gone)]
    assert found[0]["after"]["path"] != gone
    assert "does not offer it any more" in found[0]["why"]


def test_a_repo_of_another_tool_is_watched_too(qrun, hub, quants, environ):
    """What `hf download` stored is behind like anything else; there is no choice of ours to speak of."""
    name = next(iter(quants))
    hf_hub_download(REPO, name, endpoint=hub.endpoint, cache_dir=f"{environ['HF_HOME']}/hub")
    hub.replace_files(REPO, {name: b"other"})

    found = behind(qrun)

    assert [one["repo_id"] for one in found["repos"]] == [REPO]
    assert found["choices"] == []


def test_a_repo_that_the_hub_has_no_more_is_told(qrun, hub):
    """Its latest revision is unknown; people read what that means."""
    pulled(qrun, MODEL)
    hub.remove_repo(REPO)

    done = qrun("outdated")

    assert "gone, or closed" in done.stdout


def test_with_the_hub_down_it_is_exit_5(qrun, hub):
    """One line, and no half of a list."""
    pulled(qrun, MODEL)
    hub.fault("reset")

    done = qrun("outdated", "--json")

    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.count("\n") == 1


def test_a_token_that_the_hub_refuses_tells_nothing_of_the_repos(qrun, environ):
    """Exit 6 and the way out, not a list of repos that are gone."""
    pulled(qrun, MODEL)
    environ["HF_TOKEN"] = "hf_revoked"

    done = qrun("outdated", "--json")

    assert (done.returncode, done.stdout) == (6, "")
    assert "refuses your token" in done.stderr


def test_an_update_fetches_the_new_choice_and_keeps_the_old_file(qrun, hub, quants, environ):
    """The new file is whole and pinned; the old one is still there, and the cache is clean to other tools."""
    old = pulled(qrun, MODEL)
    gone = old.rpartition("/")[2]
    left = {name: file for name, file in quants.items() if name != gone}
    after = hub.replace_files(REPO, left)

    new = pulled(qrun, "--update")
    hub.requests.clear()
    again = pulled(qrun, MODEL)

    assert new.endswith(f"/snapshots/{after}/{next(iter(left))}")
    assert again == new
    assert hub.requests == []
    assert Path(old).read_bytes() == quants[gone].read_bytes()
    assert scan_cache_dir(f"{environ['HF_HOME']}/hub").warnings == []


def test_an_update_that_fails_leaves_the_old_choice(qrun, hub, quants):
    """Wrong bytes: exit 8, the pin is the old one, and what it names is still whole."""
    old = pulled(qrun, MODEL)
    gone = old.rpartition("/")[2]
    hub.replace_files(REPO, {name: file for name, file in quants.items() if name != gone})
    hub.fault("corrupt", path="^/cdn/", after_bytes=2000)

    failed = qrun("pull", "--update")

    assert failed.returncode == 8
    assert "sha256" in failed.stderr
    assert pulled(qrun, MODEL) == old


def test_a_pull_of_nothing_says_what_to_name(qrun):
    """Without MODEL and without --update there is nothing to do: exit 2."""
    done = qrun("pull")

    assert done.returncode == 2
    assert "name a MODEL" in done.stderr


def test_an_update_of_nothing_is_done(qrun):
    """Where no choice is stored there is nothing to fetch and nothing to complain of."""
    done = qrun("pull", "--update", "--json")

    assert done.returncode == 0
    assert json.loads(done.stdout) == {"models": []}


def test_a_decision_that_was_never_fetched_is_not_updated(qrun, hub, environ):
    """`resolve` keeps a decision too; an update downloads nothing that nobody had."""
    with closing(resolve_here(Request(MODEL), config=read_config(environ), to_fetch=True)) as here:
        assert here.resolution.chosen
    hub.requests.clear()

    done = qrun("pull", "--update")

    assert (done.returncode, done.stdout) == (0, "")
    assert hub.requests == []
