"""Labels of quantizations: one spelling each, read from the names that files really have."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrun.quant import (
    FILE_TYPES,
    kind_of_file,
    label_bits,
    parse_quant,
    quant_of_file,
    same_quant,
    shard_of_file,
    split_quant,
)

REAL_NAMES = [
    tuple(line.split("\t"))
    for line in (Path(__file__).parent / "data" / "gguf_names.tsv").read_text().splitlines()[3:]
    if line
]

LISTING = Path(__file__).parent / "data" / "hub" / "listing.jsonl.gz"
PATHS = [
    path
    for line in gzip.decompress(LISTING.read_bytes()).decode().splitlines()
    for path, _ in json.loads(line)["files"]
    if path.lower().endswith(".gguf")
]
# What a label looks like. `4B` and `2512` are a size and a date.
LIKE_A_LABEL = re.compile(
    r"(?<![A-Z])[IT]?Q[0-9]|[0-9]_?(?:bit|bpw)|(?:fp|int|nf|bf)_?[0-9]|(?<![A-Z])F(?:16|32)|APEX|MoQ", re.IGNORECASE
)


def test_every_name_in_the_listing_is_a_labelled_model_or_a_stated_other_thing():
    """Of 12,582 models 38 bear no label at all, and their headers tell; no name has one that is not understood."""
    kinds = Counter(kind_of_file(path) for path in PATHS)
    unlabelled = [path for path in PATHS if kind_of_file(path) == "model" and quant_of_file(path) is None]

    assert kinds == {"model": 12582, "mmproj": 392, "imatrix": 124, "audio": 6, "draft": 2}
    assert len(unlabelled) == 38
    assert not [path for path in unlabelled if LIKE_A_LABEL.search(path)]


def test_every_label_in_the_listing_can_be_asked_for():
    """What a file gives is a fixed point, alone and behind a name, in capitals and in small letters."""
    labels = {label for path in PATHS if kind_of_file(path) == "model" and (label := quant_of_file(path))}

    assert len(labels) > 90
    for label in labels:
        assert parse_quant(label) == label
        assert parse_quant(label.lower()).casefold() == label.casefold()
        assert split_quant(f"Some-Model-{label}") == ("Some-Model", label)


WORDS = st.sampled_from(
    ["Q4", "_K", "_M", "UD-", "i1-", "-", ".", "_", "bpw", "4.25", "bit", "APEX-", "MoQ-", "imatrix"]
)
NAMES = st.text(max_size=60) | st.lists(WORDS, max_size=8).map("".join)


@given(NAMES, st.sampled_from(["", ".gguf", ".GGUF", "-00001-of-00002.gguf", "/x.gguf"]))
def test_no_name_breaks_the_reading(name, ending):
    """Any text is a kind and a label or none; a label that is given is one."""
    path = name + ending

    assert kind_of_file(path) in {"model", "mmproj", "imatrix", "draft", "vocab", "audio"}
    if label := quant_of_file(path):
        assert same_quant(parse_quant(label), label)
    assert (shard_of_file(path) or ("", 1, 1))[1] >= 0
    assert split_quant(name)[0] or not name
    if parsed := parse_quant(name):
        assert parse_quant(parsed) == parsed


def test_there_are_hundreds_of_real_names():
    """The file of names is read, so that the tests below cannot pass on nothing."""
    assert len(REAL_NAMES) > 300


@pytest.mark.parametrize(("path", "kind", "quant"), REAL_NAMES)
def test_a_real_file_name_gives_its_kind_and_quant(path, kind, quant):
    """Every file of the Hub is a model with its quant, a model whose header must tell, or a stated other thing."""
    assert kind_of_file(path) == kind
    if kind == "model":
        assert quant_of_file(path) == (None if quant == "-" else quant)


@pytest.mark.parametrize("quant", sorted({quant for _, _, quant in REAL_NAMES} - {"-"}))
def test_a_label_found_in_a_name_is_spelled_as_qrun_spells_it(quant):
    """Canonical labels are fixed points: what a file gives, a request can ask for."""
    assert parse_quant(quant) == quant
    assert parse_quant(quant.lower()).casefold() == quant.casefold()


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Q4_K_M", "Q4_K_M"),
        ("q4_k_m", "Q4_K_M"),
        ("q4km", "Q4_K_M"),
        ("UD-Q4_K_XL", "UD-Q4_K_XL"),
        ("ud-q4_k_xl", "UD-Q4_K_XL"),
        ("Q4_K_L", "Q4_K_L"),
        ("i1-IQ4_XS", "IQ4_XS"),
        ("MXFP4_MOE", "MXFP4_MOE"),
        ("mxfp4", "mxfp4"),
        ("TQ1_0", "TQ1_0"),
        ("Q8", "Q8_0"),
        ("Q4", "Q4"),
        ("BF16", "bf16"),
        ("fp16", "f16"),
        ("4.25bpw", "4.25bpw"),
        ("3_25bpw", "3.25bpw"),
        ("1.25bit", "1.25bpw"),
        ("MoQ-2.85", "2.85bpw"),
        ("apex-i-balanced", "APEX-I-BALANCED"),
        ("4.00bpw", "4.0bpw"),
        ("4bit", "4bit"),
        ("4-bit", "4bit"),
        ("8Bit", "8bit"),
        ("4bit-dwq", "4bit-DWQ"),
        ("4bit-DWQ-053125", "4bit-DWQ"),
        ("4bit-g128", "4bit-g128"),
        ("FP8", "fp8"),
        ("nf4", "nf4"),
        ("int8", "int8"),
    ],
)
def test_a_quant_in_any_usual_spelling_parses(text, label):
    """GGUF types stand in capitals, all others in small letters."""
    assert parse_quant(text) == label


@pytest.mark.parametrize(
    "text", ["8b", "70B", "latest", "instruct", "3.1", "v0.3", "2507", "a3b", "", "q", "Q9_0", "IQ"]
)
def test_what_is_no_quant_does_not_parse(text):
    """Sizes, versions and tags behind a colon belong to the name."""
    assert parse_quant(text) is None


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("mmproj-F16.gguf", "mmproj"),
        ("imatrix.gguf", "imatrix"),
        ("GRM2-3b.imatrix.gguf", "imatrix"),
        ("SmallThinker-21B-A3B-Instruct.Q4_0.imatrix.gguf", "model"),
        ("mtp-Qwen3.6-27B-Q8_0.gguf", "draft"),
        ("Qwen3.6-27B-MTP-Q8_0.gguf", "model"),
        ("eagle3-Llama-3.1-8B-Instruct-F16.gguf", "draft"),
        ("ggml-vocab-llama-bpe.gguf", "vocab"),
    ],
)
def test_what_lies_beside_models_is_told_apart(path, kind):
    """Projectors, importance matrices and draft heads are never taken for the model."""
    assert kind_of_file(path) == kind


def test_shards_share_a_name_and_tell_number_and_count():
    """The set, not the shard, is the model."""
    assert shard_of_file("Q8_0/M-Q8_0-00002-of-00003.gguf") == ("Q8_0/M-Q8_0", 2, 3)
    assert shard_of_file("M-Q8_0.gguf") is None


def test_a_folder_names_the_quant_where_the_file_does_not():
    """`Q4_K_M/model-00001-of-00002.gguf` is a Q4_K_M, and the file's own label beats the folder's."""
    assert quant_of_file("Q4_K_M/model-00001-of-00002.gguf") == "Q4_K_M"
    assert quant_of_file("BF16/M-Q8_0.gguf") == "Q8_0"
    assert quant_of_file("F16/repo/model.gguf") is None


def test_a_quant_at_the_end_of_a_name_comes_off():
    """What is left is the model's name."""
    assert split_quant("SmolLM2-135M-Q8_0") == ("SmolLM2-135M", "Q8_0")
    assert split_quant("M.i1-IQ4_XS") == ("M", "IQ4_XS")
    assert split_quant("Qwen3-4B-4bit-DWQ-053125") == ("Qwen3-4B", "4bit-DWQ")
    assert split_quant("Llama-3-8B") == ("Llama-3-8B", None)


def test_case_does_not_count_in_comparing_quants():
    """`q4_k_m` asks for Q4_K_M."""
    assert same_quant("q4_k_m", "Q4_K_M")
    assert same_quant("bf16", "BF16")
    assert not same_quant("Q4_K_M", "Q4_K_S")
    assert not same_quant("UD-Q4_K_XL", "Q4_K_XL")


@pytest.mark.parametrize(
    ("label", "bits"),
    [("Q4_K_M", 4), ("UD-IQ2_XXS", 2), ("TQ1_0", 1), ("MXFP4_MOE", 4), ("bf16", 16), ("4.25bpw", 4.25), ("8bit", 8)],
)
def test_a_label_promises_its_bits(label, bits):
    """The figure that tensors are held against."""
    assert label_bits(label) == bits


def test_file_types_are_those_of_the_gguf_package():
    """llama.cpp's numbers for whole files, held against those that the package has too."""
    package = {kind.value: kind.name.partition("_")[2] for kind in gguf.LlamaFileType}
    shared = package.keys() & FILE_TYPES.keys()

    assert len(shared) > 30
    assert {number: FILE_TYPES[number].upper() for number in shared} == {number: package[number] for number in shared}
