"""What a llama.cpp library can load, asked of the library itself: `python -I inventory.py LIBRARY`.

Run as a script in a process of its own, never imported by qrun: a library of another processor or version may take the
process down, and what was printed until then counts. One JSON object a line: `{"architectures": [names]}` from the
function that llama.cpp looks names up with, then `{"tensor_types": [ids]}`, the ids that its own GGUF reader accepts.
Standard library only.
"""

import ctypes
import json
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["main"]

_NAME_OF = "_Z13llm_arch_name8llm_arch"  # llm_arch_name(llm_arch) as GCC and Clang write it
_NO_NAME = {b"(unknown)", b"unknown"}
_MOST_NAMES = 2048
_NO_TEXT_MODEL = {"clip"}  # in the list for projectors, and refused as a model
_MOST_TYPES = 512  # ik_llama.cpp's reach to 399
_GGUF_VERSION, _ROW = 3, 1024  # a row that every type's blocks divide


class _InitParams(ctypes.Structure):
    """gguf.h: struct gguf_init_params."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def main(library_path: str) -> int:
    """Print what it loads."""
    library = ctypes.CDLL(library_path)
    print(json.dumps({"architectures": list(_architectures(library))}), flush=True)
    with tempfile.TemporaryDirectory(prefix="qrun-inventory-") as folder:
        print(json.dumps({"tensor_types": list(_tensor_types(library, Path(folder) / "one.gguf"))}), flush=True)
    return 0


def _architectures(library: ctypes.CDLL) -> Iterator[str]:
    name_of = library[_NAME_OF]
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.c_int]
    for number in range(_MOST_NAMES):
        name = name_of(number)
        if name is None or name in _NO_NAME:
            return
        if name.decode() not in _NO_TEXT_MODEL:
            yield name.decode()


def _tensor_types(library: ctypes.CDLL, path: Path) -> Iterator[int]:
    read, free = library.gguf_init_from_file, library.gguf_free
    read.restype, read.argtypes = ctypes.c_void_p, [ctypes.c_char_p, _InitParams]
    free.restype, free.argtypes = None, [ctypes.c_void_p]
    for number in range(_MOST_TYPES):
        path.write_bytes(_file_with(number))
        if found := read(str(path).encode(), _InitParams(no_alloc=True, ctx=None)):
            free(found)
            yield number


def _file_with(type_number: int) -> bytes:
    """A GGUF of one tensor of that type; its data is never read."""
    name = b"t"
    tensor = struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, _ROW, type_number, 0)
    header = b"GGUF" + struct.pack("<IQQ", _GGUF_VERSION, 1, 0) + tensor
    return header + bytes(8 * _ROW + 64)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
