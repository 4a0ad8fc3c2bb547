"""The stamp in a runner's folder of engine environments: which of them is in force.

It is written after a self-test by one rename, so a half-made environment is never found through it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Stamp", "read_stamp", "write_stamp"]

_NAME = "current.json"


@dataclass(frozen=True, slots=True)
class Stamp:
    """The environment in force, what is in it, and the self-test it passed (ISO 8601 in UTC, and its duration)."""

    environment: Path
    flavour: str
    version: str
    backends: frozenset[str]
    tested_at: str
    test_took_s: float


def read_stamp(folder: Path) -> Stamp | None:
    """The stamp in a runner's folder; None where there is none, or its environment is gone."""
    try:
        said = json.loads((folder / _NAME).read_text())
        stamp = Stamp(
            environment=folder / said["environment"],
            flavour=said["flavour"],
            version=said["version"],
            backends=frozenset(said["backends"]),
            tested_at=said["tested_at"],
            test_took_s=said["test_took_s"],
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):  # by another version, or by hand: the next install writes it anew
        return None
    return stamp if stamp.environment.is_dir() else None


def write_stamp(folder: Path, stamp: Stamp) -> None:
    """Put `stamp` in force, all at once. Its environment lies in `folder`."""
    said = {
        "environment": stamp.environment.name,
        "flavour": stamp.flavour,
        "version": stamp.version,
        "backends": sorted(stamp.backends),
        "tested_at": stamp.tested_at,
        "test_took_s": stamp.test_took_s,
    }
    new = folder / f"{_NAME}.new"
    new.write_text(json.dumps(said, indent=2))
    new.replace(folder / _NAME)
