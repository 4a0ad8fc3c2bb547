"""Which names of a request mean the model that is served."""

import pytest

from qrun.gateway.served_names import ServedModel

SERVED = ServedModel(
    names=("Llama-3-8B-Instruct", "assistant"),
    base_model="meta-llama/Meta-Llama-3-8B-Instruct",
    n_ctx=8192,
    n_parallel=2,
    repo_id="bartowski/Meta-Llama-3-8B-Instruct-GGUF",
    quant="Q5_K_M",
    other_names=("llama3:8b",),
)


@pytest.mark.parametrize(
    "name",
    [
        "Llama-3-8B-Instruct",
        "llama 3 8b instruct",
        "LLAMA_3.8B-INSTRUCT",
        "assistant",
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "Meta-Llama-3-8B-Instruct",
        "bartowski/Meta-Llama-3-8B-Instruct-GGUF",
        "Meta-Llama-3-8B-Instruct-GGUF",
        "meta-llama-3-8b-instruct-gguf:q5_k_m",
        "assistant:Q5_K_M",
        "llama3:8b",
    ],
)
def test_model_answers_to_all_its_names(name):
    """Served names, base, repo, with and without organisation or quant, and what the user typed, in any spelling."""
    assert SERVED.answers_to(name)


@pytest.mark.parametrize(
    "name", ["gpt-4o", "Llama-3-70B-Instruct", "Llama-3-8B", "assistant:Q4_K_M", "meta-llama", "/", "assistant/x"]
)
def test_model_answers_to_no_other_name(name):
    """A part of a name, another size, another quant: none of them is served here."""
    assert not SERVED.answers_to(name)


def test_entry_has_the_first_name_as_id_and_all_as_aliases():
    """One entry, however many names."""
    entry = SERVED.as_entry()

    assert entry["id"] == "Llama-3-8B-Instruct"
    assert entry["aliases"] == ["Llama-3-8B-Instruct", "assistant"]
    assert entry["owned_by"] == "meta-llama"
    assert entry["meta"]["size"] is None
