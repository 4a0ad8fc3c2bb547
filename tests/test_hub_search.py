"""Queries for a name, and what a row of a listing means: pure rules over tags and names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrun.errors import AmbiguousModel
from qrun.hub_info import RepoListing
from qrun.hub_search import (
    choose_base,
    ids_of_base,
    quant_queries,
    quants_of,
    read_listing,
    search_queries,
    wider_queries,
    worth_asking,
)


def row(repo_id, *paths, base=None, relation=None, **facts):
    """A row of a listing as the Hub gives it."""
    tags = [] if base is None else [f"base_model:{base}"]
    tags += [f"base_model:{relation}:{base}"] if relation else []
    return RepoListing(repo_id, "0" * 40, (*tags, *facts.pop("tags", ())), paths=paths or None, **facts)


def repo(*args, **facts):
    """The same, read."""
    return read_listing(row(*args, **facts))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("llama3:8b", "llama-3-8b"),
        ("qwen3 30b a3b", "qwen3-30b-a3b"),
        ("gemma 3 27b instruct", "gemma-3-27b"),
        ("Llama 3.1 (70B) Instruct", "llama-3.1-70b-instruct"),
        ("meta-llama/Llama-3.2-1B", "llama-3.2-1b"),
        ("phi4", "phi-4"),
        ("llama3.2-vision 11b instruct", "llama 3.2 vision 11b"),
    ],
)
def test_one_of_the_searches_spells_the_name_as_the_hub_does(name, text):
    """Hyphens as official names have them, and the bare words in any order."""
    assert text in {words for words, _ in search_queries(name)}


@given(st.text(max_size=60))
def test_any_text_gives_few_searches(name):
    """What is asked at once is bounded, whatever was typed."""
    assert len(search_queries(name)) <= 6
    assert len(wider_queries(name)) <= 4
    assert all(words.strip() for words, _ in (*search_queries(name), *wider_queries(name)))


def test_quants_are_asked_for_by_relation_and_by_name():
    """Both ids of a renamed base by relation; the old publishers' ways of naming by name."""
    queries = quant_queries(["meta-llama/Meta-Llama-3-8B", "meta-llama/Llama-3-8B"])

    assert ("", ("base_model:quantized:meta-llama/Meta-Llama-3-8B",)) in queries
    assert ("", ("base_model:quantized:meta-llama/Llama-3-8B",)) in queries
    assert {("Llama-3-8B", ("gguf",)), ("Llama-3-8B gguf", ()), ("Llama-3-8B awq", ())} <= set(queries)
    assert len(queries) <= 8
    assert len(quant_queries(["bare-name"])) <= 6


@pytest.mark.parametrize(
    ("listing", "format_", "packed", "base"),
    [
        (row("Qwen/Qwen3-8B", "model.safetensors"), "safetensors", False, "Qwen/Qwen3-8B"),
        (row("deepseek-ai/DeepSeek-V3", "model.safetensors", tags=("fp8",)), "fp8", False, "deepseek-ai/DeepSeek-V3"),
        (row("google/gemma-2b", "model.safetensors", "g.gguf", tags=("gguf",)), "gguf", False, "google/gemma-2b"),
        (row("nvidia/Nano-4B-BF16", "model.safetensors"), "safetensors", False, "nvidia/Nano-4B-BF16"),
        (row("codellama/CodeLlama-7b-hf", "model.safetensors"), "safetensors", False, "codellama/CodeLlama-7b-hf"),
        (row("TheBloke/Llama-2-7B-fp16", "model.safetensors"), "safetensors", True, "Llama-2-7B"),
        (row("x/Qwen3-8B-GGUF", "a.gguf"), "gguf", True, "Qwen3-8B"),
        (row("mlx-community/Qwen3-8B", "model.safetensors", library_name="mlx"), "mlx", True, "Qwen3-8B"),
        (row("x/Qwen3-8B-bnb-4bit", tags=("bitsandbytes",)), "bnb", True, "Qwen3-8B"),
        (row("x/Qwen3-8B-exl3"), "exl3", True, "Qwen3-8B"),
        (row("x/GLM-4-9B-GGUF", "a.gguf", base="THUDM/GLM-4-9B", relation="quantized"), "gguf", True,
         "zai-org/GLM-4-9B"),
        (row("x/mixtral-instruct-awq", base="m/Mixtral-8x7B-Instruct", relation="quantized"), "awq", True,
         "m/Mixtral-8x7B-Instruct"),
        (row("x/A-B-merge-GGUF", "a.gguf", tags=("base_model:m/A", "base_model:m/B")), "gguf", True, "A-B-merge"),
    ],
)  # fmt: skip  # a table
def test_a_row_tells_format_packing_and_base(listing, format_, packed, base):
    """Some models are FP8 or hold a GGUF from the start; a copy in another format is packed whatever its name."""
    read = read_listing(listing)

    assert (read.format, read.packed, read.bases[0]) == (format_, packed, base)


@pytest.mark.parametrize("path", ["README.md", "adapter_model.safetensors", "mmproj-f16.gguf", "imatrix.gguf"])
def test_a_repo_without_a_model_s_weights_is_no_quant(path):
    """Adapters, projectors and matrices beside a right tag."""
    listed = repo("x/Qwen3-8B-GGUF", path, base="Qwen/Qwen3-8B", relation="quantized")

    assert quants_of("Qwen/Qwen3-8B", [listed]) == ()


def test_quants_of_a_known_publisher_s_copy_are_the_model_s():
    """Unsloth copies official repos under its own name; somebody's repo of the same name may be anything."""
    of_copy = repo("x/M-7B-GGUF", "a.gguf", base="unsloth/M-7B", relation="quantized")
    of_namesake = repo("y/M-7B-GGUF", "a.gguf", base="somebody/M-7B", relation="quantized")

    assert quants_of("mistralai/M-7B", [of_copy, of_namesake]) == (of_copy,)


def test_an_unchanged_copy_counts_and_a_namesake_does_not():
    """Plain weights: the base itself and a known publisher's copy."""
    rows = [repo(f"{who}/M-7B", "model.safetensors") for who in ("mistralai", "unsloth", "somebody")]

    assert [one.publisher for one in quants_of("mistralai/M-7B", rows)] == ["mistralai", "unsloth"]


def test_the_official_name_is_taken_over_an_exact_one_of_nobody_known():
    """`Llama-3-8B-Instruct` is Meta's, though Meta writes Meta-Llama and somebody does not."""
    repos = [
        repo("somebody/Llama-3-8B-Instruct", "model.safetensors", downloads=10**7),
        repo("meta-llama/Meta-Llama-3-8B-Instruct", "model.safetensors"),
    ]

    assert choose_base("q", "Llama-3-8B-Instruct", repos).base == "meta-llama/Meta-Llama-3-8B-Instruct"


def test_without_an_official_one_the_most_quantized_id_is_meant():
    """A model that no known organisation has."""
    repos = [repo(f"q{n}/Foo-7B-GGUF", "a.gguf", base="right/Foo-7B", relation="quantized") for n in range(3)]
    repos += [repo(f"{who}/Foo-7B", "model.safetensors") for who in ("right", "a-copy")]

    assert choose_base("q", "foo 7b", repos).base == "right/Foo-7B"


def test_choices_are_offered_with_the_best_known_first():
    """Official ones before others, then what the most repos are made from."""
    repos = [repo(f"{name}", "model.safetensors") for name in ("a-person/Qwen3-9B", "Qwen/Qwen3-8B", "Qwen/Qwen3-4B")]
    repos += [repo("x/Qwen3-8B-GGUF", "a.gguf", base="Qwen/Qwen3-8B", relation="quantized")]

    with pytest.raises(AmbiguousModel) as raised:
        choose_base("qwen3", "qwen3", repos)

    assert raised.value.nearest == ["Qwen/Qwen3-8B", "Qwen/Qwen3-4B"]
    assert choose_base("x", "claude opus", repos) is None


def test_other_ids_of_a_base_are_those_its_quants_name():
    """A repo that was renamed lives on in tags."""
    old, new = "meta-llama/Meta-Llama-3.1-8B", "meta-llama/Llama-3.1-8B"
    repos = [repo("x/Llama-3.1-8B-GGUF", "a.gguf", base=old, relation="quantized"), repo(new, "model.safetensors")]

    assert ids_of_base(new, repos) == (new, old)


def test_each_format_has_its_places_before_the_rest_is_shared():
    """Forty GGUF repos do not crowd out the one EXL2; known publishers and much used repos come first."""
    base = "acme/M-7B"
    repos = [repo(f"p{n}/M-7B-GGUF", "a.gguf", base=base, relation="quantized", downloads=n) for n in range(40)]
    repos += [repo(f"{who}/M-7B-{kind}") for who, kind in (("bartowski", "GGUF"), ("z", "exl2"), ("z", "AWQ"))]

    chosen = worth_asking(base, repos, 12)

    ids = [one.repo_id for one in chosen]
    assert len(ids) == 12
    assert ids[0] == "bartowski/M-7B-GGUF"
    assert {"z/M-7B-exl2", "z/M-7B-AWQ", "p39/M-7B-GGUF"} <= set(ids)
    assert "p0/M-7B-GGUF" not in ids
