"""Spellings of one model meet; other versions, sizes, variants and fine-tunes do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrun.name_match import NameMatch, is_same_model, match_name

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
        ("Nemotron-Nano-3-30B-A3B", "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16"),
        ("WeiboAI.VibeThinker-1.5B", "WeiboAI/VibeThinker-1.5B"),
        ("defog-sqlcoder-7b-2", "defog/sqlcoder-7b-2"),
        ("Llama-3-8B-Instruct-1048k", "gradientai/Llama-3-8B-Instruct-Gradient-1048k"),
        ("phi4:14b", "microsoft/phi-4"),
        ("command r plus", "CohereLabs/c4ai-command-r-plus"),
    ],
)
def test_two_spellings_of_one_model_are_one(one, other):
    """`it` is Instruct, `_` between digits a point, joined words one word."""
    assert is_same_model(one, other)


@pytest.mark.parametrize(
    "query", ["7b", "gpt-4o", "Llama-3.1-9B-Instruct", "qwen3 5b", "claude opus 4.6", "llama 5 8b"]
)
def test_a_model_that_is_not_there_is_not_found(query):
    """Nothing is guessed: a size alone, a closed model or a size that does not exist match nothing."""
    match = match_name(query, LLAMAS + QWENS)

    assert match.name is None
    assert match.others == ()


RELEASES = ["deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-R1-0528", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"]
RELEASES += ["deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B"]


@pytest.mark.parametrize("query", ["deepseek r1", "DeepSeek-R1", "deepseek-r1"])
def test_later_releases_of_the_same_name_are_named_beside_it(query):
    """An exact name that often means a newer one; with its organisation it means itself alone."""
    assert match_name(query, RELEASES) == NameMatch(RELEASES[0], (RELEASES[1],), loose=True)
    assert match_name("deepseek-ai/DeepSeek-R1", RELEASES) == NameMatch(RELEASES[0])


def test_a_size_that_only_distils_have_means_a_distil():
    """Ollama's tags: `8b` is one of two, `14b` the only one; the plain model has 671b."""
    assert set(match_name("deepseek-r1:8b", RELEASES).others) == {RELEASES[2], RELEASES[3]}
    assert match_name("deepseek-r1:14b", RELEASES) == NameMatch(RELEASES[4], loose=True)
    assert match_name("deepseek-r1:671b", RELEASES[:1]).name == RELEASES[0]
    assert match_name("deepseek-r1:9b", RELEASES) == NameMatch(None, loose=True)


@pytest.mark.parametrize(
    ("query", "meant"),
    [
        ("mistral nemo", "mistralai/Mistral-Nemo-Instruct-2407"),
        ("mixtral 8x7b", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
        ("llama2:7b", "meta-llama/Llama-2-7b-chat-hf"),
        ("mythomax 13b", "Gryphe/MythoMax-L2-13b"),
        ("R1T2 Chimera", "tngtech/DeepSeek-TNG-R1T2-Chimera"),
        ("apriel 1.6", "ServiceNow-AI/Apriel-1.6-15b-Thinker"),
        ("lucy 1.7b menlo", "Menlo/Lucy"),
        ("translate-gemma 4b", "google/translategemma-4b-it"),
        ("chandra ocr", "datalab-to/chandra"),
        ("command r+", "CohereLabs/c4ai-command-r-plus"),
        ("command-r", None),
        ("phi4:70b", None),
        ("chat", None),
    ],
)
def test_what_a_usual_name_leaves_out_or_adds_is_understood(query, meant):
    """Families, organisations' words, variants and dates left out; a size that the name lacks, where it is true."""
    ids = ["mistralai/Mistral-Nemo-Instruct-2407", "mistralai/Mistral-Nemo-Base-2407", "meta-llama/Llama-2-7b-hf"]
    ids += ["mistralai/Mixtral-8x7B-Instruct-v0.1", "mistralai/Mixtral-8x7B-v0.1", "meta-llama/Llama-2-7b-chat-hf"]
    ids += ["Gryphe/MythoMax-L2-13b", "tngtech/DeepSeek-TNG-R1T2-Chimera", "ServiceNow-AI/Apriel-1.6-15b-Thinker"]
    ids += ["Menlo/Lucy", "google/translategemma-4b-it", "datalab-to/chandra", "microsoft/phi-4"]
    ids += ["CohereLabs/c4ai-command-r-plus"]

    assert match_name(query, ids).name == meant


WORDS = st.lists(
    st.sampled_from(["llama", "qwen", "coder", "3", "3.1", "8b", "70b", "instruct", "v0.3"]), min_size=1, max_size=5
)


@given(WORDS, WORDS)
def test_sameness_is_symmetric_and_blind_to_punctuation(one, other):
    """A law of names: the separators and the case carry no meaning."""
    dashed, spaced = "-".join(one), " ".join(word.upper() for word in one)

    assert is_same_model(dashed, spaced)
    assert is_same_model(dashed, "-".join(other)) == is_same_model("-".join(other), dashed)
