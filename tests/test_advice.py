"""Where the choice departs from what guides tell users: the line that cites the figures."""

from dataclasses import replace

import pytest

from candidates import LLAMA_3_8B, LLAMACPP, candidate, card, cpu_only, model
from qrun.request import Request
from qrun.resolve import resolve


def why(hardware, *, found=None, **options):
    found = found or model(LLAMA_3_8B, publisher="bartowski")
    return resolve(Request(LLAMA_3_8B, **options), found, hardware, [LLAMACPP]).chosen.why


def test_speed_departs_from_the_3_bit_quants_of_the_guides_and_says_by_what():
    """IQ3_XXS loses more than speed may cost: both its figures and the chosen's stand in the explanation."""
    found = model(LLAMA_3_8B, publisher="bartowski", quants={"IQ4_XS", "IQ3_XXS"})
    lines = why(card(24), found=found, goal="speed")
    line = next(line for line in lines if line.startswith("guides name IQ3_XXS or Q3_K_M"))

    assert "IQ3_XXS of bartowski/Meta-Llama-3-8B-Instruct-GGUF, has KLD 0.1836 and about" in line
    assert "tokens/s, the chosen KLD 0.0363 and about" in line


@pytest.mark.parametrize("hardware", [cpu_only(32), card(24, kind="rocm"), card(32, kind="metal", ram_gib=32)])
def test_a_choice_that_the_guides_make_too_has_nothing_to_explain(hardware):
    """GGUF on CPUs, AMD's and Apple's GPUs, in the quants that are named for the best quality."""
    assert not [line for line in why(hardware, goal="quality") if line.startswith("guides")]


def test_what_the_guides_name_and_nobody_has_published_is_no_departure():
    """Of one file there is nothing to choose."""
    found = model(LLAMA_3_8B, publisher="bartowski", quants={"Q2_K"})

    assert not [line for line in why(card(24), found=found, goal="quality") if line.startswith("guides")]


def test_advice_that_cannot_be_followed_here_says_what_is_in_the_way():
    """AWQ without a runner: no figures, but the reason."""
    other = replace(candidate("Q4_K_M"), format="awq", quant="4bit-g128", repo_id="o/m-AWQ")
    found = model(LLAMA_3_8B, publisher="bartowski")
    found = type(found)(found.base_model, (*found.candidates, other))

    assert "guides name AWQ or GPTQ here; 4bit-g128 is no option: no runner loads awq" in why(card(24), found=found)
