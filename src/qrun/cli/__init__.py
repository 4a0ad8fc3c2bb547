"""The `qrun` command: a thin group whose commands are imported when they are called.

The one door where errors become words: a refusal is one line on stderr and the exit code of its class.
"""

from qrun.cli.group import cli
from qrun.cli.main import main

__all__ = ["cli", "main"]
