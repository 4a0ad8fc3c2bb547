"""Which source a MODEL is looked up in: the disk for a path, a folder of repos where one is set, else the Hub."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from qrun.names import ModelRef, is_path
from qrun.source import Source
from qrun.source_file import FileSource, expanded, holds_model
from qrun.source_folder import FolderSource

__all__ = ["pick_source"]

_REPO_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def pick_source(model: ModelRef, models_dir: Path | None, open_hub: Callable[[], Source]) -> Source:
    """The source of `model`: what can only be a path, or is one here and now that holds a model, is a local file.

    `open_hub` makes the source that stands for the Hub, where neither a path nor a folder of repos is meant.
    """
    here = expanded(model.name)
    if holds_model(here) or (is_path(model.name) and not _could_be_repo(model.name, models_dir)):
        return FileSource()
    if models_dir is not None:
        return FolderSource(models_dir)
    if os.path.isdir(here):  # noqa: PTH112  # Path.is_dir raises for a text too long to be a path
        return FileSource()  # which says what is missing in it
    return open_hub()


def _could_be_repo(name: str, models_dir: Path | None) -> bool:
    """Whether a name that reads like a path may be a repo `ORG/NAME.gguf`: no folder of that name is here."""
    if _REPO_ID.fullmatch(name) is None:
        return False
    return models_dir is not None or not os.path.isdir(name.partition("/")[0])  # noqa: PTH112  # as above
