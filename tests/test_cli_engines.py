"""`qrun engines` and `qrun engines install`, as commands: exit codes, lines, JSON."""

import io
import json
import os
import subprocess
import sys

import pytest

from qrun.cli.main import run_cli
from qrun.engine_install import Progress
from qrun.render_engines import show_progress


@pytest.fixture
def qrun(qrun_exe, tmp_path):
    """Runs the command with empty folders; returns what came of it."""
    folders = {f"QRUN_{name}_DIR": str(tmp_path / name.lower()) for name in ("DATA", "CACHE", "STATE")}

    def run(*arguments, **environ):
        env = {**os.environ, **folders, **environ}
        return subprocess.run([qrun_exe, *arguments], check=False, capture_output=True, text=True, env=env)

    return run


@pytest.fixture
def empty(tmp_path):
    """A folder without programs, for PATH."""
    (tmp_path / "empty").mkdir()
    return str(tmp_path / "empty")


def test_the_list_of_a_new_installation_says_what_to_type(qrun, empty):
    """Runner, formats, that there is no engine, and the command that installs it."""
    done = qrun("engines", PATH=empty)

    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "llamacpp  (gguf)",
        "  none: no engine is installed",
        "  Run: qrun engines install llamacpp",
    ]


def test_the_list_as_json_is_a_contract(qrun, empty):
    """Programs get every key always; what is not there is null."""
    (found,) = json.loads(qrun("engines", "--json", PATH=empty).stdout)["engines"]

    assert found == {
        "runner": "llamacpp",
        "formats": ["gguf"],
        "installed": False,
        "can_install": True,
        "engine": None,
        "why_not": "no engine is installed",
        "remedy": "Run: qrun engines install llamacpp",
    }


@pytest.mark.engine
def test_install_prints_one_line_and_the_list_then_tells_the_engine(qrun, empty):
    """In a pipe: one line of progress on stderr, one of outcome on stdout; then flavour, version, path and origin."""
    first = qrun("engines", "install", "llamacpp", "--yes")
    again = qrun("engines", "install", "llamacpp")
    (listed,) = json.loads(qrun("engines", "--json", PATH=empty).stdout)["engines"]
    lines = qrun("engines", PATH=empty).stdout.splitlines()

    assert (first.returncode, again.returncode) == (0, 0)
    assert len(first.stderr.splitlines()) == 1
    assert first.stdout.startswith("llamacpp: the ready engine ")
    assert "passed its self-test" in first.stdout
    assert "is already installed and passes its self-test" in again.stdout
    assert again.stderr == ""
    assert listed["installed"]
    assert listed["engine"]["flavour"] == "ready"
    assert listed["engine"]["backends"] == ["cpu"]
    assert listed["engine"]["origin"] == "qrun's engine environment"
    assert lines[1].startswith("  ready engine ")
    assert listed["engine"]["path"] in lines[2]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("install", "nope"), 2, "there is no engine 'nope'. There are: llamacpp."),
        (("install",), 2, "NAME"),
        (("instal",), 2, "instal"),
        (("install", "llamacpp", "--build"), 7, "there is no C++ compiler"),
    ],
)
def test_what_cannot_be_is_one_line_and_its_exit_code(qrun, empty, arguments, code, words):
    """A typo is 2, an engine that cannot be had 7; each is one line on stderr."""
    done = qrun("engines", *arguments, PATH=empty)

    assert done.returncode == code
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_a_damaged_index_is_told_by_one_line(qrun, tmp_path):
    """No network and no index: pip's own line, where its log is, exit 1, and no engine in force."""
    done = qrun("engines", "install", "llamacpp", PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))
    errors = [line for line in done.stderr.splitlines() if line.startswith("qrun: error: ")]

    assert done.returncode == 1
    assert len(errors) == 1
    assert len(done.stderr.splitlines()) <= 2
    assert "xllamacpp==" in errors[0]
    assert "install-llamacpp.log" in errors[0]


def test_a_folder_that_cannot_be_written_is_one_line(qrun, tmp_path):
    """The data folder is a file: its name and why, exit 1."""
    (tmp_path / "data").write_text("")
    done = qrun("engines", "install", "llamacpp")

    assert done.returncode == 1
    assert str(tmp_path / "data") in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_names_the_commands_options(capsys):
    """What `install` takes stands in its help."""
    assert run_cli(["engines", "install", "--help"]) == 0

    said = capsys.readouterr().out
    assert all(option in said for option in ("--build", "--allow-cpu-engine", "--yes"))


def test_off_a_terminal_only_the_first_step_is_said(capsys):
    """A script's log gets one line however many steps and counts there are."""
    with show_progress("llamacpp") as report:
        report(Progress("testing the installed ready engine"))
        report(Progress("building x from source"))
        for done in range(1, 50):
            report(Progress("building x", done, 49))

    assert capsys.readouterr().err == "qrun: installing llamacpp: building x from source\n"


def watch(monkeypatch):
    """Make standard error a terminal that keeps what is shown."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", Terminal())


def test_on_a_terminal_what_the_user_should_read_stays_above_the_bar(monkeypatch):
    """The bar is wiped at the end; whose engine was taken is a line of its own, unbroken, that is not."""
    watch(monkeypatch)
    whose = f"fetching x (somebody's build [of] {'a long name ' * 12}, by Vulkan)"
    with show_progress("llamacpp") as report:
        report(Progress(whose, stays=True))
        report(Progress("testing it"))

    assert sys.stderr.getvalue().count(f"llamacpp: {whose}\n") == 1
    assert "llamacpp: testing it\n" not in sys.stderr.getvalue()


def test_on_a_terminal_a_build_shows_its_part_done_and_the_time_left(monkeypatch):
    """Who watches a build sees its step, how much of it is done, and for how long it will go on."""
    watch(monkeypatch)
    with show_progress("llamacpp") as report:
        for done in range(1, 51):
            report(Progress("building x [cpu]", done, 100))
        sys.stderr.write("\n")

    shown = sys.stderr.getvalue()
    assert "llamacpp: building x [cpu]" in shown
    assert "50%" in shown
    assert "0:00:00" in shown
