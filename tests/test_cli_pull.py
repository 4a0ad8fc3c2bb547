"""`qrun pull`: several models, paths or JSON, one failure beside a success, and no engine needed."""

import json
from contextlib import contextmanager

import pytest

from qrun.cli.main import run_cli
from qrun.source import quiet
from tiny_gguf import write_tiny_gguf

REPO = "quanter/Tiny-1B-Instruct-GGUF"


@pytest.fixture
def models(tmp_path):
    """A folder of repos with two models."""
    folder = tmp_path / "models"
    write_tiny_gguf(folder / REPO / "Tiny-1B-Instruct-Q8_0.gguf")
    write_tiny_gguf(folder / "quanter" / "Great-7B-GGUF" / "Great-7B-Q8_0.gguf")
    return folder


@pytest.fixture
def pull(models, capsys, monkeypatch, tmp_path):
    """Runs `qrun pull` where no engine is installed; gives exit code, stdout and stderr."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("QRUN_DATA_DIR", str(tmp_path / "data"))

    def run(*args):
        code = run_cli(["pull", "--models-dir", str(models), "--ctx", "128", *args])
        return code, *capsys.readouterr()

    return run


def test_the_path_of_each_first_file_is_printed(pull, models):
    """One line a model in the order asked for, for scripts; no engine has to be there."""
    code, out, err = pull("Great-7B", "Tiny-1B-Instruct")

    assert (code, err) == (0, "")
    assert out.splitlines() == [
        str(models / "quanter" / "Great-7B-GGUF" / "Great-7B-Q8_0.gguf"),
        str(models / REPO / "Tiny-1B-Instruct-Q8_0.gguf"),
    ]


def test_what_is_on_this_disk_already_is_no_part_of_the_download(pull, models, monkeypatch):
    """The display counts towards what is to be fetched, or it would never come to its end."""
    told = []

    @contextmanager
    def show(total_bytes, n_files):
        told.append((total_bytes, n_files))
        yield quiet

    monkeypatch.setattr("qrun.cli.pull.show_transfer", show)
    pull("Great-7B", "Tiny-1B-Instruct")

    assert told == [(0, 0)]


def test_one_that_fails_does_not_stop_the_others(pull, models):
    """The exit code is that of the first that failed; each failure has its line."""
    code, out, err = pull("Tinny-1B-Instruct", "Great-7B", "Great-7B:Q4_K_M", "Tiny-1B-Instruct")

    assert code == 3
    assert len(out.splitlines()) == 2
    first, last = err.splitlines()
    assert first.startswith("qrun: ")
    assert "has no quant 'Q4_K_M'" in first
    assert last.startswith("qrun: error: no model named 'Tinny-1B-Instruct'")


def test_json_tells_each_model_or_its_error(pull, models):
    """Every key always; what failed has `error` as `resolve --json` has it, and no path."""
    code, out, _ = pull("Great-7B", "Tinny-1B-Instruct", "--json")
    good, bad = json.loads(out)["models"]

    assert code == 3
    assert good["model"] == "Great-7B"
    assert good["repo_id"] == "quanter/Great-7B-GGUF"
    assert (good["quant"], good["format"], good["error"]) == ("Q8_0", "gguf", None)
    assert good["path"].endswith(good["files"][0]["path"])
    assert good["size_bytes"] == good["files"][0]["size_bytes"]
    assert good.keys() == bad.keys()
    assert (bad["path"], bad["repo_id"], bad["files"]) == (None, None, [])
    assert (bad["error"]["exit"], bad["error"]["name"]) == (3, "model_not_found")


@pytest.mark.parametrize("args", [(), ("Great-7B", "--ctx", "none")])
def test_what_cannot_be_meant_is_usage(pull, args):
    """No MODEL, or an option that no model can have: exit 2."""
    assert pull(*args)[0] == 2
