"""How bytes and rates are written for people. Binary units: a GiB is 2**30 bytes."""

__all__ = ["GIB", "MIB", "gib", "size"]

MIB = 2**20
GIB = 2**30


def gib(size_bytes: int) -> str:
    """`size_bytes` in GiB with one decimal, as memory is spoken of: `6.4 GiB`; two where it is under 1 GiB."""
    value = size_bytes / GIB
    return f"{value:.2f} GiB" if value < 1 else f"{value:.1f} GiB"


def size(size_bytes: int) -> str:
    """`size_bytes` in the unit that suits it: `98.3 MiB`, `4.7 GiB`."""
    if size_bytes < GIB:
        return f"{size_bytes / MIB:.1f} MiB"
    return gib(size_bytes)
