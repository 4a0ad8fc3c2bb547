"""The header of a GGUF file: its metadata and its list of tensors, read without reading the weights.

The rule here: whatever the bytes are, `read_header` ends soon, holds little, and answers with a header or with
`HeaderDamaged`. Reading goes through a function of offset and length in growing windows, so that it works on a file and
over ranged HTTP alike. Layout: ggml's docs/gguf.md, versions 2 and 3, little endian.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from qrun.ggml_types import GGML_TYPES
from qrun.units import MIB

__all__ = ["ArrayInfo", "GgufHeader", "HeaderDamaged", "TensorInfo", "read_header"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_FIRST_WINDOW_BYTES = MIB  # each further read takes as much as all before it: 8 MiB of vocabulary are four reads
_MAX_HEADER_BYTES = 64 * MIB  # the largest seen are 14 MiB (262k tokens)
_MAX_KEYS = 4096  # usual: 30 to 60; with the kept items below this bounds what a hostile file can make us hold
_MAX_TENSORS = 65_536  # usual: 200 to 2,000
_MAX_KEY_BYTES = 65_535  # docs/gguf.md
_MAX_DIMS = 4  # GGML_MAX_DIMS
_MAX_TYPE_ID = 1023  # far above every id in use: anything more is damage, not a newer type
_MAX_FILE_BYTES = 2**62
_MAX_KEPT_ITEMS = 1024
_DEFAULT_ALIGNMENT = 32

_STRING, _ARRAY = 8, 9
_SCALARS: Mapping[int, tuple[str, str]] = {
    0: ("uint8", "B"),
    1: ("int8", "b"),
    2: ("uint16", "H"),
    3: ("int16", "h"),
    4: ("uint32", "I"),
    5: ("int32", "i"),
    6: ("float32", "f"),
    7: ("bool", "?"),
    10: ("uint64", "Q"),
    11: ("int64", "q"),
    12: ("float64", "d"),
}
_UINT32 = struct.Struct("<I")
_LENGTH = struct.Struct("<Q")
_COUNTS = struct.Struct("<QQ")
_TYPE_AND_NUMBER = struct.Struct("<IQ")

Reader = Callable[[int, int], bytes]


class HeaderDamaged(ValueError):
    """The bytes are no whole GGUF file of a kind we read. Its text is one clause without a full stop."""


@dataclass(frozen=True, slots=True)
class ArrayInfo:
    """A metadata array too long to keep (over 1024 items): what it holds and how many."""

    type: str
    count: int


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor. `dims[0]` is the row length; `offset` counts from the header's `data_offset`."""

    name: str
    dims: tuple[int, ...]
    type_id: int
    offset: int
    size_bytes: int

    @property
    def n_elements(self) -> int:
        """Weights in it."""
        return prod(self.dims)


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says of itself. `file_size_bytes` is the size its tensor list demands of the file."""

    version: int
    metadata: Mapping[str, object]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    file_size_bytes: int


def read_header(read: Reader, size_bytes: int) -> GgufHeader:
    """The header of a file of `size_bytes`, whose bytes `read(offset, n)` gives (fewer only at its end).

    Raises HeaderDamaged where the bytes are no GGUF, cut short, inconsistent, or beyond every sensible bound; whatever
    `read` raises passes through.
    """
    walk = _Walk(read, size_bytes)
    version, n_tensors, n_keys = _read_preamble(walk)
    metadata = _read_metadata(walk, n_keys)
    alignment = _alignment(metadata)
    listed = [_read_tensor(walk) for _ in range(n_tensors)]
    if len({tensor.name for tensor in listed}) != len(listed):
        raise HeaderDamaged("two tensors have the same name")

    data_offset = -(-walk.position // alignment) * alignment
    tensors = _sized(listed, alignment, size_bytes - data_offset)
    ends = [data_offset + tensor.offset + tensor.size_bytes for tensor in tensors]
    file_size_bytes = max(ends, default=walk.position)
    if file_size_bytes > size_bytes:
        raise HeaderDamaged(f"truncated: it has {size_bytes:,} bytes, its tensors need {file_size_bytes:,}")
    return GgufHeader(version, metadata, tensors, data_offset, file_size_bytes)


class _Walk:
    """A position in the file, and the bytes read so far."""

    def __init__(self, read: Reader, size_bytes: int) -> None:
        self._read = read
        self._size_bytes = size_bytes
        self._buffer = bytearray()
        self.position = 0

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        """The next values of `layout`."""
        self._need(layout.size)
        values = layout.unpack_from(self._buffer, self.position)
        self.position += layout.size
        return values

    def numbers(self, code: str, count: int) -> tuple[int | float, ...]:
        """The next `count` values of one struct code."""
        return self.unpack(struct.Struct(f"<{count}{code}"))

    def take(self, n_bytes: int) -> bytes:
        """The next `n_bytes`."""
        self._need(n_bytes)
        start = self.position
        self.position += n_bytes
        return bytes(self._buffer[start : self.position])

    def skip(self, n_bytes: int) -> None:
        """Past the next `n_bytes`."""
        self._need(n_bytes)
        self.position += n_bytes

    def skip_strings(self, count: int) -> None:
        """Past `count` strings. One loop without calls: vocabularies have 400,000 of them (0.05 s)."""
        self.need_items(count, _LENGTH.size)
        unpack, buffer, size = _LENGTH.unpack_from, self._buffer, _LENGTH.size
        position, end = self.position, len(self._buffer)
        for _ in range(count):
            if position + size > end:
                self.position = position
                self._need(size)
                end = len(buffer)
            position += size + unpack(buffer, position)[0]
        self.position = position
        self._need(0)

    def need_items(self, count: int, least_bytes: int) -> None:
        """Raise HeaderDamaged where the file is too short for `count` items of `least_bytes` or more each."""
        if count > (self._size_bytes - self.position) // least_bytes:
            raise HeaderDamaged(f"a list of {count:,} items does not fit in a file of {self._size_bytes:,} bytes")

    def _need(self, n_bytes: int) -> None:
        end = self.position + n_bytes
        if end <= len(self._buffer):
            return
        if end > self._size_bytes:
            raise HeaderDamaged(f"truncated: it has {self._size_bytes:,} bytes, its header alone needs {end:,}")
        if end > _MAX_HEADER_BYTES:
            raise HeaderDamaged(f"its header is over {_MAX_HEADER_BYTES // MIB} MiB")
        self._grow(end)

    def _grow(self, end: int) -> None:
        have = len(self._buffer)
        wanted = max(end, have + max(have, _FIRST_WINDOW_BYTES))
        wanted = min(wanted, self._size_bytes, _MAX_HEADER_BYTES)
        self._buffer += self._read(have, wanted - have)
        if len(self._buffer) < end:
            raise HeaderDamaged(f"truncated: {len(self._buffer):,} bytes could be read of {self._size_bytes:,}")


def _read_preamble(walk: _Walk) -> tuple[int, int, int]:
    magic = walk.take(4)
    if magic != _MAGIC:
        raise HeaderDamaged(f"it is no GGUF file (it starts with {magic.hex(' ')})")
    (version,) = walk.unpack(_UINT32)
    if version not in _VERSIONS:
        if int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS:
            raise HeaderDamaged("it is a big-endian GGUF file; this machine's engines read little-endian ones")
        raise HeaderDamaged(f"its GGUF version {version} is not known (2 and 3 are)")
    n_tensors, n_keys = walk.unpack(_COUNTS)
    if n_tensors > _MAX_TENSORS or n_keys > _MAX_KEYS:
        raise HeaderDamaged(f"it claims {n_tensors:,} tensors and {n_keys:,} metadata keys")
    walk.need_items(n_keys, 13)  # a key's length, its type, a byte of value
    walk.need_items(n_tensors, 24)
    return version, n_tensors, n_keys


def _read_metadata(walk: _Walk, n_keys: int) -> dict[str, object]:
    metadata: dict[str, object] = {}
    for _ in range(n_keys):
        key = _read_name(walk, "a metadata key")
        if key in metadata:
            raise HeaderDamaged(f"its metadata has {key!r} twice")
        (type_id,) = walk.unpack(_UINT32)
        metadata[key] = _read_value(walk, type_id)
    return metadata


def _read_name(walk: _Walk, what: str) -> str:
    (length,) = walk.unpack(_LENGTH)
    if length > _MAX_KEY_BYTES:
        raise HeaderDamaged(f"{what} is {length:,} bytes long")
    try:
        return walk.take(length).decode()
    except UnicodeDecodeError as error:
        raise HeaderDamaged(f"{what} is not UTF-8") from error


def _read_value(walk: _Walk, type_id: int) -> object:
    if type_id == _STRING:
        (length,) = walk.unpack(_LENGTH)
        # Values are for people; some converters wrote broken UTF-8 into them, which harms nothing.
        return walk.take(length).decode(errors="replace")
    if type_id == _ARRAY:
        return _read_array(walk)
    if type_id not in _SCALARS:
        raise HeaderDamaged(f"its metadata has a value of unknown type {type_id}")
    return walk.numbers(_SCALARS[type_id][1], 1)[0]


def _read_array(walk: _Walk) -> object:
    type_id, count = walk.unpack(_TYPE_AND_NUMBER)
    if type_id == _ARRAY:
        raise HeaderDamaged("its metadata nests arrays, which no engine reads")
    if type_id == _STRING:
        if count <= _MAX_KEPT_ITEMS:
            return tuple(_read_value(walk, type_id) for _ in range(count))
        walk.skip_strings(count)
        return ArrayInfo("string", count)
    if type_id not in _SCALARS:
        raise HeaderDamaged(f"its metadata has an array of unknown type {type_id}")
    name, code = _SCALARS[type_id]
    if count <= _MAX_KEPT_ITEMS:
        return walk.numbers(code, count)
    walk.skip(count * struct.calcsize(f"<{code}"))
    return ArrayInfo(name, count)


def _alignment(metadata: Mapping[str, object]) -> int:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= MIB or alignment & (alignment - 1):
        raise HeaderDamaged(f"its alignment is {alignment!r}, no power of two")
    return alignment


def _read_tensor(walk: _Walk) -> TensorInfo:
    """The next entry of the tensor list, its size 0 where the type's is not known."""
    name = _read_name(walk, "a tensor's name")
    (n_dims,) = walk.unpack(_UINT32)
    if not 0 < n_dims <= _MAX_DIMS:
        raise HeaderDamaged(f"tensor {name!r} has {n_dims} dimensions")
    dims = walk.unpack(struct.Struct(f"<{n_dims}Q"))
    type_id, offset = walk.unpack(_TYPE_AND_NUMBER)
    if type_id > _MAX_TYPE_ID:
        raise HeaderDamaged(f"tensor {name!r} has the type {type_id}")
    if prod(dims) > _MAX_FILE_BYTES or offset > _MAX_FILE_BYTES:
        raise HeaderDamaged(f"tensor {name!r} is larger than any file")
    return TensorInfo(name, dims, type_id, offset, _size_of(name, dims, type_id))


def _size_of(name: str, dims: tuple[int, ...], type_id: int) -> int:
    known = GGML_TYPES.get(type_id)
    if known is None or not known.supported:
        return 0
    if dims[0] % known.block_size:
        raise HeaderDamaged(f"tensor {name!r} has rows of {dims[0]}, which {known.name} cannot hold")
    return prod(dims) // known.block_size * known.type_size


def _sized(listed: list[TensorInfo], alignment: int, data_bytes: int) -> tuple[TensorInfo, ...]:
    """The tensors with a size each: one of an unknown type reaches to the next tensor, or to the file's end."""
    starts = sorted({tensor.offset for tensor in listed})
    following = dict(pairwise([*starts, max(data_bytes, 0)]))
    return tuple(_with_size(tensor, following[tensor.offset], alignment) for tensor in listed)


def _with_size(tensor: TensorInfo, next_offset: int, alignment: int) -> TensorInfo:
    if tensor.offset % alignment:
        raise HeaderDamaged(f"tensor {tensor.name!r} starts at {tensor.offset:,}, which is not aligned")
    if tensor.type_id in GGML_TYPES and GGML_TYPES[tensor.type_id].supported:
        return tensor
    size_bytes = max(0, next_offset - tensor.offset)
    return TensorInfo(tensor.name, tensor.dims, tensor.type_id, tensor.offset, size_bytes)
