"""What a container or service manager lets this process use: memory and CPU time by Linux's cgroups, v1 and v2.

Every group from the process's own up to the highest that is visible holds: the tightest limit counts, and so does what
its other members have used of it. Kernel interface: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["CgroupLimits", "read_cgroup"]

# v1 says "no limit" by the largest number of pages it can count; nothing real comes near it.
_V1_UNLIMITED_BYTES = 2**60


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """The limits on this process; None: no limit. `memory_free_bytes` is what is left within the fullest limit."""

    memory_limit_bytes: int | None = None
    memory_free_bytes: int | None = None
    quota_cores: float | None = None


@dataclass(frozen=True, slots=True)
class _Mount:
    root: PurePosixPath  # the group that stands at `point`
    point: PurePosixPath
    controllers: frozenset[str] | None  # None: v2, which has all of them


@dataclass(frozen=True, slots=True)
class _Room:
    limit_bytes: int
    free_bytes: int | None


def read_cgroup(root: Path = Path("/")) -> CgroupLimits:
    """The limits on the process that asks. `root` is where /proc and /sys are; what is not there limits nothing."""
    rooms = [room for folder in _groups(root, "memory") if (room := _memory_room(folder))]
    quotas = [quota for folder in _groups(root, "cpu") if (quota := _quota(folder))]
    return CgroupLimits(
        memory_limit_bytes=min((room.limit_bytes for room in rooms), default=None),
        memory_free_bytes=min((room.free_bytes for room in rooms if room.free_bytes is not None), default=None),
        quota_cores=min(quotas, default=None),
    )


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the groups that hold this process, innermost first, of v1 and v2 alike."""
    paths = _own_paths(_read(root / "proc/self/cgroup") or "")
    for mount in _mounts(_read(root / "proc/self/mountinfo") or ""):
        if mount.controllers is not None and controller not in mount.controllers:
            continue
        path = paths.get(controller if mount.controllers is not None else "")
        if path is None:
            continue
        inner = _inside(path, mount)
        for group in (inner, *inner.parents):
            if group.is_relative_to(mount.point):
                yield root / group.relative_to("/")


def _inside(path: PurePosixPath, mount: _Mount) -> PurePosixPath:
    # In a container the mount may show a part of the tree while /proc still tells the whole path, or a path outside
    # of it (`/../..`): then the mount's own top is the innermost group that can be seen.
    if ".." not in path.parts and path.is_relative_to(mount.root):
        return mount.point / path.relative_to(mount.root)
    return mount.point


def _own_paths(text: str) -> dict[str, PurePosixPath]:
    """/proc/self/cgroup: the group for each v1 controller, and for v2 under the empty name."""
    paths: dict[str, PurePosixPath] = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        paths.update(dict.fromkeys(controllers.split(","), PurePosixPath(path)))
    return paths


def _mounts(text: str) -> Iterator[_Mount]:
    """/proc/self/mountinfo: where cgroup file systems are mounted (fields: Documentation/filesystems/proc.rst 3.5)."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):  # noqa: PLR2004 - fields of the format
            continue
        controllers = frozenset(kind[2].split(",")) if kind[0] == "cgroup" else None
        yield _Mount(_unescaped(fields[3]), _unescaped(fields[4]), controllers)


def _unescaped(field: str) -> PurePosixPath:
    return PurePosixPath(field.replace("\\040", " ").replace("\\134", "\\"))


def _memory_room(folder: Path) -> _Room | None:
    """The memory limit that one group sets, of whichever version; None: it sets none."""
    # memory.high does not kill, but it slows whoever passes it to a crawl: for an engine it is a limit.
    v2 = [limit for name in ("memory.max", "memory.high") if (limit := _number(folder / name)) is not None]
    if v2:
        return _room(min(v2), folder, used="memory.current", prefix="", mapped="file_mapped")
    v1 = _number(folder / "memory.limit_in_bytes")
    if v1 is None or v1 >= _V1_UNLIMITED_BYTES:
        return None
    return _room(v1, folder, used="memory.usage_in_bytes", prefix="total_", mapped="mapped_file")


def _room(limit_bytes: int, folder: Path, *, used: str, prefix: str, mapped: str) -> _Room:
    used_bytes = _number(folder / used)
    if used_bytes is None:
        return _Room(limit_bytes, None)
    stat = _stat(folder / "memory.stat")
    # File cache is given up on demand, but not what programs have mapped: a running engine's weights are such pages.
    cache = stat.get(f"{prefix}active_file", 0) + stat.get(f"{prefix}inactive_file", 0)
    reclaimable = max(0, cache - stat.get(f"{prefix}{mapped}", 0)) + stat.get("slab_reclaimable", 0)
    return _Room(limit_bytes, max(0, min(limit_bytes, limit_bytes - used_bytes + reclaimable)))


def _quota(folder: Path) -> float | None:
    """The cores that one group's CPU time amounts to; None: no limit."""
    v2 = (_read(folder / "cpu.max") or "").split()
    if len(v2) == 2 and all(word.isdigit() for word in v2):  # noqa: PLR2004 - quota and period
        return int(v2[0]) / int(v2[1])
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period else None


def _stat(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in (_read(path) or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}  # noqa: PLR2004 - a pair


def _number(path: Path) -> int | None:
    text = (_read(path) or "").strip()
    return int(text) if text.isdigit() else None  # `max` and `-1`: no limit


def _read(path: Path) -> str | None:
    # A controller that is off has no files, and some containers hide them: what cannot be read sets no known limit.
    try:
        return path.read_text()
    except OSError:
        return None
