"""Native wheels built here, kept so that one machine builds once.

A wheel is kept under a key of everything that shapes it: version, flags, compiler and processor; pip's own cache, which
knows only the version, is not used. Its sha256 is recorded when it is made and checked when it is taken again.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qrun.engine_env import Workshop, pip_command, requirement
from qrun.engine_sources import Recipe, Site
from qrun.hardware import Hardware
from qrun.units import GIB

__all__ = ["WheelKey", "build_wheel", "keep_wheel", "kept_wheel", "wheel_key"]

_RECORD = "wheel.json"
_STEP = re.compile(r"^\s*\[(\d+)/(\d+)\]")  # ninja's count
_RAM_PER_JOB_BYTES = GIB  # the largest of llama.cpp's sources takes 0.9 GiB in g++ 12


@dataclass(frozen=True, slots=True)
class WheelKey:
    """What shapes a native wheel, and the folder's name for it."""

    folder: str
    cmake_args: str


def wheel_key(recipe: Recipe, site: Site, hardware: Hardware, *, users_cmake_args: str = "") -> WheelKey:
    """The key of a build here. `users_cmake_args` come after ours and win."""
    cmake_args = " ".join([*recipe.cmake_args, *users_cmake_args.split()])
    shapes = {
        "sha256": recipe.sha256,
        "cmake_args": cmake_args,
        "compilers": [_version_of(compiler) for compiler in site.compilers or ()],
        "platform": [site.os, site.arch, site.glibc],
        "cpu": [hardware.cpu.name, sorted(hardware.cpu.isa or ())],
    }
    digest = hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()[:16]
    return WheelKey(f"{recipe.distribution}-{recipe.version}-{digest}", cmake_args)


def kept_wheel(wheels_dir: Path, key: WheelKey) -> Path | None:
    """The wheel kept under `key`; None where there is none, or its bytes are no longer those that were built."""
    folder = wheels_dir / key.folder
    try:
        record = json.loads((folder / _RECORD).read_text())
        wheel = folder / record["name"]
        return wheel if _sha256(wheel) == record["sha256"] else None
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def keep_wheel(wheels_dir: Path, key: WheelKey, wheel: Path) -> Path:
    """Move a built wheel under its key, all at once; returns its new place."""
    made = wheel.parent
    (made / _RECORD).write_text(
        json.dumps({"name": wheel.name, "sha256": _sha256(wheel), "cmake_args": key.cmake_args})
    )
    place = wheels_dir / key.folder
    shutil.rmtree(place, ignore_errors=True)  # one whose bytes have changed
    made.rename(place)
    return place / wheel.name


def build_wheel(
    recipe: Recipe,
    *,
    key: WheelKey,
    site: Site,
    hardware: Hardware,
    python: Path,
    into: Path,
    workshop: Workshop,
    progress: Callable[[int, int], None],
) -> Path:
    """Build into the new folder `into`; `progress` gets ninja's count. Raises Failure with the log's reason."""
    into.mkdir(parents=True)
    wanted = into / "requirements.txt"
    wanted.write_text(requirement(recipe.distribution, recipe.version, recipe.sha256))
    c, cxx = site.compilers or ("cc", "c++")
    extra = {
        "CMAKE_ARGS": key.cmake_args,
        "CMAKE_BUILD_PARALLEL_LEVEL": workshop.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(_jobs(hardware)),
        "CC": workshop.environ.get("CC") or c,
        "CXX": workshop.environ.get("CXX") or cxx,
    }
    options = ["-v", "--no-deps", "--no-cache-dir", "--no-binary", recipe.distribution, "--require-hashes"]
    command = [*pip_command(python), "wheel", *options, "--wheel-dir", str(into), "-r", str(wanted)]
    workshop.run(command, extra=extra, on_line=lambda line: _count(line, progress))
    return next(into.glob("*.whl"))


def _count(line: str, progress: Callable[[int, int], None]) -> None:
    if found := _STEP.match(line):
        progress(int(found[1]), int(found[2]))


def _jobs(hardware: Hardware) -> int:
    """Compilers at once: one for each core this process may use, as far as memory goes."""
    cores = hardware.cpu.logical_cores or os.cpu_count() or 1
    if hardware.cpu.quota_cores is not None:
        cores = min(cores, int(hardware.cpu.quota_cores))
    free = hardware.ram_bytes if hardware.ram_free_bytes is None else hardware.ram_free_bytes
    return max(1, min(cores, free // _RAM_PER_JOB_BYTES))


def _version_of(compiler: str) -> str:
    done = subprocess.run(
        [compiler, "--version"], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return done.stdout.partition("\n")[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
