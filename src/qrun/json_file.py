"""Writing a JSON file so that whoever reads it finds the old or the new one, whole, whoever else writes at once."""

import json
import os
import tempfile
from pathlib import Path

__all__ = ["write_json"]


def write_json(path: Path, document: object, *, indent: int | None = None) -> None:
    """Put `document` in place of what is at `path`; the folder is made. Raises OSError, and then changes nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: two processes that write at once must not write into one file.
    handle, made = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            json.dump(document, opened, indent=indent)
        Path(made).replace(path)
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise
