"""Names as words and numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrun.name_words import aligned, is_size, joined, squeezed, tokens, words_of


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Meta-Llama-3-8B-Instruct", ("llama", "3", "8b", "instruct")),
        ("NVIDIA-Nemotron-3-Nano-4B-BF16", ("nemotron", "3", "nano", "4b")),
        ("c4ai-command-r-plus", ("command", "r", "plus")),
        ("Command R+ 104B", ("command", "r", "plus", "104b")),
        ("saiga_llama3_8b", ("saiga", "llama", "3", "8b")),
        ("Llama-3_3-Nemotron-Super-49B-v1_5", ("llama", "3.3", "nemotron", "super", "49b", "1.5")),
        ("Qwen3-TTS-12Hz-1.7B", ("qwen", "3", "tts", "12hz", "1.7b")),
        ("gemma-3-27b-it-qat-q4_0-unquantized", ("gemma", "3", "27b", "instruct", "qat")),
        ("ERNIE-4.5-21BA3B", ("ernie", "4.5", "21b", "a3b")),
    ],
)
def test_a_name_comes_apart_into_words_and_numbers(name, words):
    """Makers' names, packing of plain weights and ways of writing versions go."""
    assert tokens(name) == words


def test_words_are_divided_as_the_other_name_divides_them():
    """Written together or apart, on either side."""
    assert aligned(["translate", "gemma", "4b"], ["translategemma", "4b"]) == ["translategemma", "4b"]
    assert aligned(["openhermes", "2.5"], ["open", "hermes", "2.5"]) == ["open", "hermes", "2.5"]
    assert aligned(["llama", "8b"], ["qwen", "8b"]) == ["llama", "8b"]


def test_sizes_are_told_from_versions_and_contexts():
    """`8b` and `270m` count parameters; `3.1`, `128k` and `a3b` do not."""
    assert all(map(is_size, ["8b", "1.7b", "270m"]))
    assert not any(map(is_size, ["3.1", "128k", "a3b", "8x7b", "llama"]))


NAMES = st.text(max_size=40) | st.from_regex(r"[A-Za-z0-9._/ -]{1,40}", fullmatch=True)


@given(NAMES, NAMES)
def test_any_two_names_can_be_compared(one, other):
    """No text breaks the words, and dividing them loses no letter."""
    mine, theirs = tokens(one), tokens(other)

    assert "".join(aligned(mine, theirs)) == "".join(mine)
    assert all(words_of(one)) or not words_of(one)
    assert squeezed(joined(mine)) == squeezed("".join(mine))
