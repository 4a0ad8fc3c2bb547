"""The next smaller model of a family: from the table, or not at all."""

import pytest

from qrun.families import smaller_of_family
from qrun.units import GIB


@pytest.mark.parametrize(
    ("asked", "most_gib", "named"),
    [
        ("meta-llama/Llama-3.3-70B-Instruct", 20, "meta-llama/Llama-3.1-8B-Instruct"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", 3, "meta-llama/Llama-3.2-3B-Instruct"),  # of the version that has one
        ("qwen/qwen2.5-72b-instruct", 20, "Qwen/Qwen2.5-32B-Instruct"),  # case ignored
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", 6, "Qwen/Qwen3-4B-Instruct-2507"),
        ("openai/gpt-oss-20b", 100, None),  # there is none smaller
        ("google/gemma-3-27b-it", 0.1, None),  # none is small enough
        ("somebody/a-model-of-their-own-7B", 100, None),  # nothing is made up
    ],
)
def test_the_largest_smaller_model_whose_weights_fit_is_named(asked, most_gib, named):
    """Smaller than what was asked for, and in Q4_K_M no larger than the room there is."""
    found = smaller_of_family(asked, int(most_gib * GIB))

    assert (found.repo_id if found else None) == named
