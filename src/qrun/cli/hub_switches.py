"""`--models-dir`, `--offline` and `--refresh`: where a model is looked up, once for all commands."""

from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import click

__all__ = ["models_dir_option", "offline_option", "refresh_option"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def models_dir_option(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """`--models-dir`: the command is called with `models_dir`."""
    return click.option(
        "--models-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Look in this folder of repos ORG/NAME/files, not on the Hub; default: QRUN_MODELS_DIR.",
    )(command)


def refresh_option(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """`--refresh`: the command is called with `refresh`."""
    return click.option("--refresh", is_flag=True, help="Decide anew what was decided before, and say what changed.")(
        command
    )


def offline_option(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """`--offline`: the command is called with `offline`."""
    return click.option("--offline", is_flag=True, help="Ask the Hub for nothing: take what is stored.")(command)
