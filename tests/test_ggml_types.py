"""The table of tensor types against the `gguf` package's."""

import gguf
import pytest

from qrun.ggml_types import GGML_TYPES, type_name

# The package has Q8_1 as 40 bytes, as it was until 2024; ggml's block_q8_1 has 36. It is never stored in a file.
_OUTDATED = {gguf.GGMLQuantizationType.Q8_1}


@pytest.mark.parametrize(
    "known", [known for known in gguf.GGMLQuantizationType if known not in _OUTDATED], ids=lambda known: known.name
)
def test_sizes_are_those_of_the_gguf_package(known):
    """Every type that the gguf package knows has its name and sizes here, and counts as loadable."""
    ours = GGML_TYPES[known.value]

    assert ours.name == known.name
    assert (ours.block_size, ours.type_size) == gguf.GGML_QUANT_SIZES[known]
    assert ours.supported


@pytest.mark.parametrize(("type_id", "name"), [(139, "IQ4_K"), (140, "IQ5_K"), (144, "IQ4_KS"), (133, "Q6_0")])
def test_types_of_ik_llama_cpp_are_known_by_name_and_not_supported(type_id, name):
    """llama.cpp cannot load ik_llama.cpp's types: a candidate that has them is refused by their name."""
    assert GGML_TYPES[type_id].name == name
    assert not GGML_TYPES[type_id].supported


def test_types_that_llama_cpp_dropped_are_not_supported():
    """Q4_0_4_4 and its kind are refused by today's loader."""
    assert [GGML_TYPES[type_id].supported for type_id in (4, 5, 31, 32, 33, 36, 37, 38)] == [False] * 8


def test_a_type_newer_than_the_table_is_named_by_its_number():
    """A file of tomorrow is spoken of, not crashed on."""
    assert type_name(12) == "Q4_K"
    assert type_name(77) == "type 77"


def test_bits_per_weight_count_the_scales():
    """Q4_0's block of 32 weights has 18 bytes: 4.5 bits."""
    assert GGML_TYPES[2].bpw == pytest.approx(4.5)
    assert GGML_TYPES[139].bpw == 0
