"""`--offline` and `--refresh`, once for all commands that ask the Hub."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import click

__all__ = ["offline_option", "refresh_option"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def refresh_option(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """`--refresh`: the command is called with `refresh`."""
    return click.option("--refresh", is_flag=True, help="Decide anew what was decided before, and say what changed.")(
        command
    )


def offline_option(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """`--offline`: the command is called with `offline`."""
    return click.option("--offline", is_flag=True, help="Ask the Hub for nothing: take what is stored.")(command)
