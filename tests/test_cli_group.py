"""Starting qrun: the lazy table says what the commands say, and start-up imports nothing that can wait."""

import json
import subprocess
import sys

import click
import pytest

from qrun.cli.group import COMMANDS, cli

# Of the standard library, what is slow to import and of no use before a command runs.
HEAVY = {"asyncio", "http.client", "importlib.metadata", "multiprocessing", "ssl", "tomllib", "urllib.request"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name):
    """`qrun --help` prints a command's help without importing it, so both must hold the same sentence."""
    command = cli.get_command(click.Context(cli), name)

    assert command is not None
    assert command.name == name
    assert COMMANDS[name][1] == command.get_short_help_str(limit=200)


def test_help_imports_click_and_the_thin_modules_alone():
    """`qrun --help` is answered within a blink because nothing heavy is imported for it."""
    loaded = _modules_after("--help")
    third_party = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names

    assert third_party == {"click", "qrun"}
    assert not HEAVY & loaded
    assert {name for name in loaded if name.startswith("qrun")} == {
        "qrun",
        "qrun.cli",
        "qrun.cli.group",
        "qrun.cli.main",
        "qrun.errors",
        "qrun.units",
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_help_opens_no_http_stack(name):
    """`qrun COMMAND --help` needs neither the server nor a probe of the machine."""
    loaded = _modules_after(name, "--help")

    assert not {"aiohttp", "psutil", "pynvml"} & loaded


def _modules_after(*argv):
    """What a fresh interpreter has imported once it has run `qrun ARGV`, beyond what Python starts with."""
    script = (
        "import sys; before = set(sys.modules)\n"
        "from qrun.cli.main import run_cli\n"
        f"code = run_cli({list(argv)!r}); loaded = set(sys.modules) - before\n"
        "import json; print(); print(json.dumps([code, sorted(loaded)]))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    code, loaded = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    return set(loaded)
