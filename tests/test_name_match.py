"""Spellings of one model meet; other versions, sizes, variants and fine-tunes do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrun.name_match import is_same_model, match_name
from qrun.packed_name import base_names, likeliest_id

LLAMAS = [
    "meta-llama/Meta-Llama-3-8B",
    "meta-llama/Meta-Llama-3-8B-Instruct",
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.1-70B-Instruct",
    "mlabonne/Meta-Llama-3.1-8B-Instruct-abliterated",
    "gradientai/Llama-3-8B-Instruct-Gradient-1048k",
]
QWENS = ["Qwen/Qwen3-4B", "Qwen/Qwen3-4B-Instruct-2507", "Qwen/Qwen3-4B-Thinking-2507", "Qwen/Qwen3.5-4B"]


@pytest.mark.parametrize(
    ("query", "meant"),
    [
        ("Llama-3-8B-Instruct", "meta-llama/Meta-Llama-3-8B-Instruct"),
        ("LLaMA3 8B Instruct", "meta-llama/Meta-Llama-3-8B-Instruct"),
        ("llama3:8b-instruct", "meta-llama/Meta-Llama-3-8B-Instruct"),
        ("meta-llama/llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("Llama 3.1 (70B) Instruct", "meta-llama/Llama-3.1-70B-Instruct"),
        ("llama 3.1 8b instruct abliterated", "mlabonne/Meta-Llama-3.1-8B-Instruct-abliterated"),
        ("Meta-Llama-3-8B", "meta-llama/Meta-Llama-3-8B"),
        ("llama 3 8b base", "meta-llama/Meta-Llama-3-8B"),
    ],
)
def test_any_usual_spelling_finds_its_model(query, meant):
    """Case, punctuation, organisation and `Meta-` do not count; sizes, versions, variants and fine-tunes do."""
    assert match_name(query, LLAMAS).name == meant


def test_a_looser_spelling_prefers_the_instruct_model_and_names_the_base():
    """`llama3 8b` is literally the base, and mostly meant as Instruct."""
    match = match_name("llama3:8b", LLAMAS[:2])

    assert match.name == "meta-llama/Meta-Llama-3-8B-Instruct"
    assert match.others == ("meta-llama/Meta-Llama-3-8B",)
    assert match.loose


def test_a_spelling_without_size_is_ambiguous():
    """Without a clear preference nothing is chosen, and the choices are named."""
    match = match_name("llama 3.1 instruct", LLAMAS)

    assert match.name is None
    assert set(match.others) == {"meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-70B-Instruct"}


def test_instruct_or_thinking_is_ambiguous():
    """Two variants of one date: neither is preferred."""
    match = match_name("qwen3 4b 2507", QWENS)

    assert match.name is None
    assert set(match.others) == {"Qwen/Qwen3-4B-Instruct-2507", "Qwen/Qwen3-4B-Thinking-2507"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Llama-3-8B-Instruct", "Llama-3.1-8B-Instruct"),
        ("Llama-3-8B-Instruct", "Llama-3-8B"),
        ("Llama-3.1-8B-Instruct", "Llama-3.1-70B-Instruct"),
        ("Qwen3-8B", "DeepSeek-R1-0528-Qwen3-8B"),
        ("GLM-4.6", "GLM-4.6V"),
        ("gemma-3-4b-it", "medgemma-4b-it"),
        ("Qwen3 5B", "Qwen3.5-B"),
        ("LFM2-1.2B", "LFM2.5-1.2B"),
        ("gpt-oss-20b", "gpt-oss-20b-heretic"),
        ("org/Llama-3-8B", "other/Llama-3-8B"),
    ],
)
def test_another_model_is_another_model(one, other):
    """A number or word on one side only makes two models, and so do two organisations."""
    assert not is_same_model(one, other)
    assert not is_same_model(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gemma-3-4b-it", "Gemma-3 4B Instruct"),
        ("CodeLlama-7b-Python-hf", "code llama 7B python"),
        ("Llama-3_3-Nemotron-Super-49B-v1_5", "Llama-3.3-Nemotron-Super-49B-v1.5"),
        ("Mixtral-8x7B-Instruct-v0.1", "mixtral 8x7b instruct 0.1"),
        ("Dolphin3.0-Llama3.1-8B", "dolphin3 llama3.1 8b"),
        ("Qwen3VL-4B-Thinking", "Qwen/Qwen3-VL-4B-Thinking"),
    ],
)
def test_two_spellings_of_one_model_are_one(one, other):
    """`it` is Instruct, `_` between digits a point, joined words one word."""
    assert is_same_model(one, other)


@pytest.mark.parametrize(
    ("repo_id", "base"),
    [
        ("bartowski/Qwen_Qwen3-8B-GGUF", "Qwen/Qwen3-8B"),
        ("bartowski/Llama-3.2-1B-Instruct-GGUF", "Llama-3.2-1B-Instruct"),
        ("mradermacher/Qwen3-8B-i1-GGUF", "Qwen3-8B"),
        ("mlx-community/Devstral-Small-2507-MLX-4bit", "Devstral-Small-2507"),
        ("mlx-community/Qwen3-4B-4bit-DWQ-053125", "Qwen3-4B"),
        ("mlx-community/nvidia_Llama-3.1-Nemotron-70B-Instruct-HF_4bit", "nvidia/Llama-3.1-Nemotron-70B-Instruct"),
        ("unsloth/Qwen3-4B-unsloth-bnb-4bit", "Qwen3-4B"),
        ("Qwen/Qwen3-14B-AWQ", "Qwen3-14B"),
        ("Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8", "Qwen2.5-14B-Instruct"),
        ("turboderp/Qwen3-8B-exl3", "Qwen3-8B"),
        ("LoneStriker/Meta-Llama-3-70B-4.65bpw-h6-exl2", "Meta-Llama-3-70B"),
        ("RedHatAI/phi-4-FP8-dynamic", "phi-4"),
        ("noctrex/GLM-4.7-Flash-MXFP4_MOE-GGUF", "GLM-4.7-Flash"),
        ("x/Tifa-7b-Q8_0-GGUF", "Tifa-7b"),
        ("Epiculous/Violet_Twilight-v0.2-GGUF", "Violet_Twilight-v0.2"),
        ("meta-llama/Llama-3.1-8B-Instruct", "Llama-3.1-8B-Instruct"),
    ],
)
def test_a_repo_name_gives_its_base(repo_id, base):
    """What says how the model is packed comes off; a publisher's prefix becomes the organisation."""
    assert base_names(repo_id)[0] == base


def test_an_unknown_organisation_before_the_name_is_a_second_reading():
    """One publisher writes ORG_NAME throughout; an underscore alone is no proof of it."""
    assert base_names("bartowski/POLARIS-Project_Polaris-4B-Preview-GGUF") == (
        "POLARIS-Project_Polaris-4B-Preview",
        "POLARIS-Project/Polaris-4B-Preview",
    )


def test_the_known_organisation_is_the_likeliest():
    """An official id beats a copy's, and any id a bare name."""
    assert likeliest_id(["copy/M-7B", "copy/M-7B", "mistralai/M-7B", "M-7B"]) == "mistralai/M-7B"
    assert likeliest_id(["M-7B", "M-7B", "copy/M-7B"]) == "copy/M-7B"


@pytest.mark.parametrize(
    "query", ["7b", "gpt-4o", "Llama-3.1-9B-Instruct", "qwen3 5b", "claude opus 4.6", "llama 5 8b"]
)
def test_a_model_that_is_not_there_is_not_found(query):
    """Nothing is guessed: a size alone, a closed model or a size that does not exist match nothing."""
    match = match_name(query, LLAMAS + QWENS)

    assert match.name is None
    assert match.others == ()


WORDS = st.lists(
    st.sampled_from(["llama", "qwen", "coder", "3", "3.1", "8b", "70b", "instruct", "v0.3"]), min_size=1, max_size=5
)


@given(WORDS, WORDS)
def test_sameness_is_symmetric_and_blind_to_punctuation(one, other):
    """A law of names: the separators and the case carry no meaning."""
    dashed, spaced = "-".join(one), " ".join(word.upper() for word in one)

    assert is_same_model(dashed, spaced)
    assert is_same_model(dashed, "-".join(other)) == is_same_model("-".join(other), dashed)
