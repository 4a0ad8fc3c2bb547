"""The CLI's door: what is raised below it becomes one line on stderr and an exit code."""

import subprocess
import sys

import click
import pytest

from qrun import errors
from qrun.cli.group import cli
from qrun.cli.main import Terminated, run_cli


@pytest.fixture
def failing_command():
    """A command `boom` in the group that raises what the test puts in."""
    raised: list[BaseException] = []

    @click.command()
    def boom() -> None:
        raise raised.pop()

    cli.add_command(boom)
    yield raised
    del cli.commands["boom"]


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (errors.Failure("no permission to write x."), 1),
        (errors.UsageError("--ctx takes a number."), 2),
        (errors.ModelNotFound("lama", "models", ["llama"]), 3),
        (errors.NothingFits("m", 10, 5, "Try a shorter --ctx."), 4),
        (errors.EngineMissing("llamacpp", "not installed", "Run it."), 7),
        (errors.FileDamaged("m.gguf", "it ends early"), 8),
        (KeyboardInterrupt(), 130),
        (Terminated(), 143),
    ],
)
def test_a_refusal_ends_with_its_class_s_exit_code(failing_command, error, exit_code):
    """Every error class reaches the shell as the exit code it carries."""
    failing_command.append(error)

    assert run_cli(["boom"]) == exit_code


def test_a_message_of_several_lines_is_printed_as_one(failing_command, capsys):
    """Programs read one line, whatever an engine or file system put into the message."""
    failing_command.append(errors.Failure("first\nsecond   line", "Do this."))

    run_cli(["boom"])

    assert capsys.readouterr().err == "qrun: error: first second line Do this.\n"


def test_a_bug_gives_a_line_and_a_file_with_the_traceback(failing_command, capsys, tmp_path, monkeypatch):
    """Users never see a traceback; whoever mends the bug finds it in a file that is named."""
    monkeypatch.setenv("QRUN_STATE_DIR", str(tmp_path))
    failing_command.append(ZeroDivisionError("division by zero"))

    code = run_cli(["boom"])

    line = capsys.readouterr().err
    assert code == 1
    assert line.count("\n") == 1
    assert str(tmp_path / "crash.log") in line
    assert "ZeroDivisionError" in (tmp_path / "crash.log").read_text()


def test_an_operating_system_error_names_the_file(failing_command, capsys):
    """Permission and disk errors say which file they are about."""
    failing_command.append(PermissionError(13, "Permission denied", "/some/file"))

    code = run_cli(["boom"])

    assert code == 1
    assert capsys.readouterr().err == "qrun: error: /some/file: Permission denied\n"


@pytest.mark.parametrize("argv", [["--no-such"], ["no-such-command"], ["serve", "--port", "x", "m"]])
def test_a_wrong_option_is_one_line_that_points_at_the_help(argv, capsys):
    """Usage errors exit 2 and say where the help is."""
    code = run_cli(argv)

    err = capsys.readouterr().err
    assert code == 2
    assert err.count("\n") == 1
    assert "--help" in err


def test_version_prints_name_and_version(capsys):
    """`qrun --version` prints `qrun VERSION`."""
    from qrun import __version__

    code = run_cli(["--version"])

    assert code == 0
    assert capsys.readouterr().out == f"qrun {__version__}\n"


def test_a_reader_that_leaves_is_no_error():
    """`qrun --help | head -1` prints nothing on stderr and no traceback."""
    program = "import sys; from qrun.cli import main; main()"
    child = subprocess.Popen(
        [sys.executable, "-c", program, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    err = child.stderr.read()
    child.stderr.close()
    child.wait()

    assert err == ""
