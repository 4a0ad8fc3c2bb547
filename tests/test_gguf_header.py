"""Our reader of GGUF headers, against the `gguf` package's reader and writer, and against damage."""

import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from hypothesis import given, settings
from hypothesis import strategies as st

from qrun.gguf_header import ArrayInfo, GgufHeader, HeaderDamaged, read_header
from sparse_gguf import MODELS, write_sparse, write_tensors

MIB = 2**20


def header_of(content: bytes, size_bytes: int | None = None) -> GgufHeader:
    """The header of these bytes."""
    return read_header(lambda at, n: content[at : at + n], len(content) if size_bytes is None else size_bytes)


def header_of_file(path: Path) -> GgufHeader:
    """The header of a file, read from disk."""
    with path.open("rb") as file:
        return read_header(_reader(file), path.stat().st_size)


def _reader(file) -> Callable[[int, int], bytes]:
    def read(offset: int, n_bytes: int) -> bytes:
        file.seek(offset)
        return file.read(n_bytes)

    return read


def gguf_bytes(*, version=3, keys=(), tensors=(), n_keys=None, n_tensors=None, data=b"") -> bytes:
    """A GGUF file put together by hand: `keys` are (name, type, packed value), `tensors` (name, dims, type, offset)."""
    content = b"GGUF" + struct.pack(
        "<IQQ", version, len(tensors) if n_tensors is None else n_tensors, len(keys) if n_keys is None else n_keys
    )
    for name, type_id, value in keys:
        content += text(name) + struct.pack("<I", type_id) + value
    for name, dims, type_id, offset in tensors:
        content += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, type_id, offset)
    return content + bytes(-len(content) % 32) + data


def text(value: str) -> bytes:
    """A GGUF string."""
    return struct.pack("<Q", len(value.encode())) + value.encode()


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> bytes:
    """A small whole file with every kind of value, written by the gguf package."""
    path = tmp_path_factory.mktemp("small") / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for kind, value in (("uint8", 200), ("int8", -3), ("uint16", 60_000), ("int16", -300), ("uint32", 4_000_000_000)):
        getattr(writer, f"add_{kind}")(f"test.{kind}", value)
    for kind, value in (("int32", -70_000), ("uint64", 2**40), ("int64", -(2**40)), ("float32", 1.5), ("float64", 0.1)):
        getattr(writer, f"add_{kind}")(f"test.{kind}", value)
    writer.add_bool("test.bool", val=True)
    writer.add_string("test.string", "naïve 日本語")
    writer.add_array("test.strings", ["a", "", "ß"])
    writer.add_array("test.numbers", [3, 1, 2])
    writer.add_array("test.long", list(range(2000)))
    writer.add_array("test.words", [f"w{i}" for i in range(1500)])
    writer.add_tensor("token_embd.weight", np.ones((4, 64), dtype=np.float32))
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((64, 18), dtype=np.uint8), raw_dtype=Type.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def assert_like_the_gguf_package(ours: GgufHeader, path: Path) -> None:
    """Metadata and tensors are what gguf.GGUFReader says of the same file."""
    theirs = gguf.GGUFReader(path)
    fields = {name: value for name, value in theirs.fields.items() if not name.startswith("GGUF.")}
    assert list(ours.metadata) == list(fields)
    for name, value in fields.items():
        mine = ours.metadata[name]
        if isinstance(mine, ArrayInfo):
            assert mine.count == len(value.data)
            assert mine.type == value.types[-1].name.lower()
        else:
            assert (list(mine) if isinstance(mine, tuple) else mine) == value.contents()
    assert [
        (tensor.name, list(tensor.dims), tensor.type_id, ours.data_offset + tensor.offset, tensor.size_bytes)
        for tensor in ours.tensors
    ] == [
        (tensor.name, tensor.shape.tolist(), tensor.tensor_type.value, tensor.data_offset, tensor.n_bytes)
        for tensor in theirs.tensors
    ]


def test_every_kind_of_value_is_read_as_the_gguf_package_reads_it(small, tmp_path):
    """All scalar types, strings and arrays of the format, and the tensor list."""
    path = tmp_path / "small.gguf"
    path.write_bytes(small)
    header = header_of(small)

    assert_like_the_gguf_package(header, path)
    assert header.metadata["test.bool"] is True
    assert header.metadata["test.long"] == ArrayInfo("int32", 2000)
    assert header.file_size_bytes <= len(small)


def test_a_published_model_is_read_as_the_gguf_package_reads_it(smollm2_q4_1):
    """SmolLM2-135M-Instruct as it was published: 49,152 tokens, 272 tensors, and not a byte too few or too many."""
    header = header_of_file(smollm2_q4_1)

    assert_like_the_gguf_package(header, smollm2_q4_1)
    assert len(header.tensors) == 272
    assert header.file_size_bytes == smollm2_q4_1.stat().st_size


def test_version_2_is_read_like_version_3(small):
    """The two versions have one layout on little-endian machines."""
    older = small[:4] + struct.pack("<I", 2) + small[8:]

    assert header_of(older).tensors == header_of(small).tensors


def test_the_file_s_own_alignment_holds(tmp_path):
    """general.alignment moves the weights."""
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_custom_alignment(256)
    writer.add_tensor("a", np.ones(3, dtype=np.float32))
    writer.add_tensor("b", np.ones(3, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = header_of_file(tmp_path / "a.gguf")

    assert_like_the_gguf_package(header, tmp_path / "a.gguf")
    assert header.data_offset % 256 == 0
    assert header.tensors[1].offset == 256


def test_weights_are_never_read(tmp_path):
    """Of 40 GB only the header is read, in one piece where it is small."""
    path = write_sparse(tmp_path / "70b.gguf", MODELS["llama-3.3-70b"])
    asked = []
    with path.open("rb") as file:
        read = _reader(file)
        header = read_header(lambda at, n: asked.append((at, n)) or read(at, n), path.stat().st_size)

    assert header.file_size_bytes == pytest.approx(path.stat().st_size, abs=32)
    assert asked == [(0, MIB)]


def test_a_large_vocabulary_is_walked_in_few_reads():
    """128,000 tokens and 280,000 merges are counted, not kept, and reads grow instead of repeating."""
    tokens = b"".join(text(f"token {i:06d}") for i in range(128_000))
    merges = b"".join(text(f"merge {i:06d} of two") for i in range(280_000))
    content = gguf_bytes(
        keys=[
            ("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 128_000) + tokens),
            ("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, 128_000) + bytes(512_000)),
            ("tokenizer.ggml.merges", 9, struct.pack("<IQ", 8, 280_000) + merges),
            ("last", 4, struct.pack("<I", 7)),
        ]
    )
    reads = []
    header = read_header(
        lambda at, n: reads.append((at, n)) or content[at : at + n].ljust(n, b"\0"),
        50 * 2**30,
    )

    assert header.metadata["tokenizer.ggml.tokens"] == ArrayInfo("string", 128_000)
    assert header.metadata["tokenizer.ggml.merges"] == ArrayInfo("string", 280_000)
    assert header.metadata["last"] == 7
    assert len(reads) <= 5
    assert [at for at, _ in reads[1:]] == [at + n for at, n in reads[:-1]]
    assert sum(n for _, n in reads) <= 2 * len(content)


def test_a_file_cut_short_is_noticed_with_both_sizes(small):
    """A download that broke off says how much is there and how much the tensors need."""
    whole = header_of(small).file_size_bytes
    with pytest.raises(HeaderDamaged, match=f"truncated: it has {whole - 1:,} bytes, its tensors need {whole:,}"):
        header_of(small[: whole - 1])


@pytest.mark.parametrize("kept", [0, 3, 4, 8, 23, 24, 40, 100, 500, 5000])
def test_a_header_cut_short_is_noticed(small, kept):
    """Wherever the file ends, it is called truncated or no GGUF."""
    with pytest.raises(HeaderDamaged, match=r"truncated|no GGUF|does not fit"):
        header_of(small[:kept])


def test_a_reader_that_gives_too_little_is_noticed(small):
    """A file that shrank, or a server that answers short, is damage and no endless loop."""
    with pytest.raises(HeaderDamaged, match="truncated: 100 bytes could be read of"):
        read_header(lambda at, n: small[at : min(100, at + n)], len(small))


def test_errors_of_the_reader_pass_through(small):
    """What goes wrong below is not called damage."""

    def read(offset: int, n_bytes: int) -> bytes:
        raise PermissionError("no")

    with pytest.raises(PermissionError):
        read_header(read, len(small))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04" + bytes(100), "no GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1 is not known"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (gguf_bytes(n_keys=2**60), "metadata keys"),
        (gguf_bytes(n_tensors=2**60), "tensors"),
        (gguf_bytes(n_keys=4000), "does not fit"),
        (gguf_bytes(keys=[("k", 8, struct.pack("<Q", 2**63))]), "truncated"),
        (gguf_bytes(keys=[("k", 9, struct.pack("<IQ", 8, 2**60))]), "does not fit"),
        (gguf_bytes(keys=[("k", 9, struct.pack("<IQ", 4, 2**60))]), "truncated"),
        (gguf_bytes(keys=[("k", 9, struct.pack("<IQIQ", 9, 1, 9, 1))]), "nests arrays"),
        (gguf_bytes(keys=[("k", 13, b"")]), "unknown type 13"),
        (gguf_bytes(keys=[("k", 9, struct.pack("<IQ", 99, 5000) + bytes(9000))]), "unknown type 99"),
        (gguf_bytes(keys=[("k", 0, b"a"), ("k", 0, b"a")]), "'k' twice"),
        (gguf_bytes(keys=[("general.alignment", 4, struct.pack("<I", 24))]), "alignment is 24"),
        (gguf_bytes(keys=[("general.alignment", 8, text("32"))]), "alignment is '32'"),
        (gguf_bytes(tensors=[("t", (), 0, 0)]), "0 dimensions"),
        (gguf_bytes(tensors=[("t", (1, 1, 1, 1, 1), 0, 0)]), "5 dimensions"),
        (gguf_bytes(tensors=[("t", (33,), 2, 0)]), "rows of 33, which Q4_0 cannot hold"),
        (gguf_bytes(tensors=[("t", (2**40, 2**40), 0, 0)]), "larger than any file"),
        (gguf_bytes(tensors=[("t", (8,), 0, 7)], data=bytes(64)), "not aligned"),
        (gguf_bytes(tensors=[("t", (8,), 0, 0), ("t", (8,), 0, 32)], data=bytes(64)), "same name"),
        (gguf_bytes(tensors=[("t", (8,), 0, 2**40)], data=bytes(64)), "truncated"),
        (gguf_bytes(tensors=[("t", (8,), 4_000_000, 0)], data=bytes(64)), "has the type 4000000"),
    ],
)
def test_damage_is_named(content, says):
    """Each kind of damage has its own sentence, one clause on one line."""
    with pytest.raises(HeaderDamaged, match=says) as raised:
        header_of(content)

    assert "\n" not in str(raised.value)


def test_a_big_endian_file_is_refused_by_name(tmp_path):
    """The gguf package can write them, for machines that are not ours."""
    writer = gguf.GGUFWriter(tmp_path / "big.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with pytest.raises(HeaderDamaged, match="big-endian"):
        header_of_file(tmp_path / "big.gguf")


def test_a_header_beyond_every_sensible_size_is_refused():
    """A claimed vocabulary of a gigabyte ends at 64 MiB, read in windows."""
    start = gguf_bytes(keys=[("k", 9, struct.pack("<IQ", 4, 2**28))])
    read = []

    def endless(offset: int, n_bytes: int) -> bytes:
        read.append(n_bytes)
        return start[offset : offset + n_bytes].ljust(n_bytes, b"\0")

    with pytest.raises(HeaderDamaged, match="over 64 MiB"):
        read_header(endless, 2**40)

    assert sum(read) <= 64 * MIB


def test_tensors_of_unknown_types_reach_to_the_next_one():
    """ik_llama.cpp's types and newer ones than ours keep the file readable: the resolver refuses them by name."""
    header = header_of(
        gguf_bytes(tensors=[("a", (256,), 139, 0), ("b", (8,), 0, 160), ("c", (64,), 77, 192)], data=bytes(256))
    )

    assert [(tensor.name, tensor.type_id, tensor.size_bytes) for tensor in header.tensors] == [
        ("a", 139, 160),
        ("b", 0, 32),
        ("c", 77, 64),
    ]


def test_a_hostile_file_makes_us_hold_little():
    """Metadata of nothing but numbers, the most that is kept of a header, takes at most six times its own bytes."""
    numbers = struct.pack("<IQ", 10, 1000) + struct.pack("<1000Q", *range(2**40, 2**40 + 1000))
    content = gguf_bytes(keys=[(f"k{i}", 9, numbers) for i in range(400)])
    tracemalloc.start()
    header_of(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 6 * len(content)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_give_a_header_or_damage(content):
    """Whatever the bytes are, nothing but HeaderDamaged comes out."""
    for start in (b"", b"GGUF", b"GGUF" + struct.pack("<IQQ", 3, 1, 2)):
        with suppress(HeaderDamaged):
            header_of(start + content)


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_a_mutated_file_gives_a_header_or_damage(small, data):
    """Bytes overwritten, cut out or put in anywhere in a real header: nothing but HeaderDamaged comes out."""
    content = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(0, 1200), st.integers(0, len(content) - 1)))
        n_gone = data.draw(st.integers(0, 9))
        content[at : at + n_gone] = data.draw(st.one_of(st.binary(max_size=9), st.just(b"\xff" * 8)))
    with suppress(HeaderDamaged):
        assert header_of(bytes(content)).file_size_bytes <= len(content)


_VALUES = st.one_of(st.booleans(), st.integers(0, 2**32 - 1), st.text(min_size=1, max_size=30))


@settings(max_examples=60, deadline=None)
@given(
    keys=st.dictionaries(st.from_regex(r"[a-z]{1,8}\.[a-z_]{1,20}", fullmatch=True), _VALUES, max_size=12),
    widths=st.lists(st.integers(1, 40), max_size=8),
)
def test_what_the_gguf_package_writes_comes_back(tmp_path_factory, keys, widths):
    """Metadata and tensors of any file of its writer are read as they were written."""
    path = tmp_path_factory.mktemp("any") / "any.gguf"
    tensors = [(f"blk.{i}.ffn_up.weight", (32 * width, 3), Type.Q8_0) for i, width in enumerate(widths)]
    write_tensors(path, "any", keys, tensors)
    header = header_of_file(path)

    assert [(tensor.name, tensor.dims, Type(tensor.type_id)) for tensor in header.tensors] == tensors
    assert {key: header.metadata[f"any.{key}"] for key in keys} == keys
