"""Writing a file so that whoever reads it finds the old or the new one, whole, whoever else writes at once."""

import json
import os
import tempfile
from pathlib import Path

__all__ = ["write_json", "write_whole"]


def write_json(path: Path, document: object, *, indent: int | None = None) -> None:
    """Put `document` in place of what is at `path`. Raises OSError, and then changes nothing."""
    write_whole(path, json.dumps(document, indent=indent).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` in place of what is at `path`; the folder is made. Raises OSError, and then changes nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: two processes that write at once must not write into one file.
    handle, made = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(content)
        Path(made).replace(path)
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise
