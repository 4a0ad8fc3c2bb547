"""Doubles of machines that are not here: files of /proc, /sys and /dev, planted in a folder.

Their contents are what such machines print (the source stands beside each); a probe reads them as it reads real ones.
"""

from collections.abc import Mapping
from pathlib import Path

# A desktop of 32 GB, as `cat /proc/meminfo` begins.
MEMINFO = """\
MemTotal:       32768000 kB
MemFree:         1024000 kB
MemAvailable:   20480000 kB
Buffers:          204800 kB
HugePages_Total:       0
"""
MEM_TOTAL_BYTES = 32768000 * 1024
MEM_AVAILABLE_BYTES = 20480000 * 1024


def plant(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write `files` (path below `root` -> content) and return `root`."""
    for path, content in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(content)
    return root
