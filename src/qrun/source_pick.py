"""Which source a MODEL is looked up in: the disk for a path, the folder of repos for a name."""

import os
import re
from pathlib import Path

from qrun.errors import ModelNotFound
from qrun.names import ModelRef, is_path
from qrun.source import Source
from qrun.source_file import FileSource, expanded, holds_model
from qrun.source_folder import FolderSource

__all__ = ["pick_source"]

_REPO_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def pick_source(model: ModelRef, models_dir: Path | None) -> Source:
    """The source of `model`: what can only be a path, or is one here and now that holds a model, is a local file.

    Raises ModelNotFound for a name where no folder of repos is set.
    """
    here = expanded(model.name)
    could_be_repo = bool(models_dir and _REPO_ID.fullmatch(model.name))  # a repo may be called `ORG/NAME.gguf`
    if holds_model(here) or (is_path(model.name) and not could_be_repo):
        return FileSource()
    if models_dir is not None:
        return FolderSource(models_dir)
    if os.path.isdir(here):  # noqa: PTH112  # Path.is_dir raises for a text too long to be a path
        return FileSource()  # which says what is missing in it
    hint = "Give --models-dir DIR (or set QRUN_MODELS_DIR) for a folder of repos ORG/NAME, or the path of a GGUF file."
    raise ModelNotFound(model.text, "local files, and no folder of models is set", hint=hint)
