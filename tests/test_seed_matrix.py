"""Every row of what guides tell users: the choice agrees, or its explanation cites the figures that decide."""

import re

import pytest

from candidates import card, cpu_only
from case_models import found, ggufs
from conftest import ROOT
from qrun.engine_models import simulated_states
from qrun.publishers import is_trusted
from qrun.quality import expected_quality
from qrun.request import Request
from qrun.resolve import resolve
from seed_matrix import QUESTIONS, ROWS

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
SERVED = [one for one in QUESTIONS if one.goal != "finetune"]
FIGURES = re.compile(r"KLD \d\.\d{4} and about [\d.]+ tokens/s, the chosen KLD \d\.\d{4} and about [\d.]+ tokens/s")
PAGE = ROOT / "docs" / "measurements" / "departures.md"


@pytest.mark.parametrize("question", SERVED, ids=str)
def test_the_choice_agrees_with_the_row_or_cites_what_decides(question):
    """Never a departure without both KLDs and both rates in the explanation."""
    chosen = question.decided().chosen

    if question.departs(chosen.candidate):
        assert any(line.startswith("guides name") and FIGURES.search(line) for line in chosen.why), chosen.why
    else:
        assert chosen.candidate.publisher in question.row.get("publishers", [chosen.candidate.publisher])


@pytest.mark.parametrize("question", SERVED, ids=str)
def test_a_departure_is_decided_by_its_figures(question):
    """What is advised and was an option is worse by more than .002 KLD, or slower by more than a hundredth."""
    resolution = question.decided()
    chosen = resolution.chosen
    if not question.departs(chosen.candidate):
        return
    fitting = [one for one in resolution.rejected if one.reason in ("worse_quality", "slower", "same_as_chosen")]
    advised = [one for one in fitting if not question.departs(one.candidate)]

    for one in advised:
        worse = one.quality.kld > chosen.quality.kld + 0.002
        assert worse or one.speed.decode_tps < chosen.speed.decode_tps, one


@pytest.mark.parametrize("question", [one for one in QUESTIONS if one.goal == "finetune"], ids=str)
def test_fine_tuning_names_the_nf4_repo_and_how_to_load_it(question):
    """The repo is handed over: there is no training here."""
    handover = question.decided().handover

    assert (handover.candidate.format, handover.candidate.quant) == ("bnb", "nf4")
    assert handover.candidate.publisher in question.row["publishers"]
    assert handover.candidate.repo_id in handover.load


@pytest.mark.parametrize("question", [one for one in SERVED if "warns" in one.row], ids=str)
def test_what_loses_much_warns_and_names_the_better_use(question):
    """The tiny quants: a smaller model at 4 bits."""
    assert "is the better use of this memory" in "".join(question.decided().warnings)


def test_large_models_on_small_cards_are_divided():
    """GGUF with a part of the layers on the CPU."""
    row = next(row for row in ROWS if "layers on the CPU" in row["name"])

    assert {one.decided().chosen.placement.mode for one in SERVED if one.row is row} == {"split"}


def test_the_page_of_departures_names_every_row_that_departs():
    """docs/measurements/departures.md, as scripts/bench/seed_matrix.py prints it."""
    departing = {str(one) for one in SERVED if one.departs(one.decided().chosen.candidate)}
    page = PAGE.read_text()

    assert {one for one in departing if f"| {one} |" not in page} == set(), "run scripts/bench/seed_matrix.py"


@pytest.mark.parametrize(
    ("better", "worse"), [("IQ4_XS", "Q3_K_L"), ("IQ3_XS", "Q3_K_S"), ("IQ3_M", "Q3_K_S"), ("IQ2_M", "Q2_K")]
)
def test_i_quants_lose_less_than_k_quants_of_about_their_size(better, worse):
    """With an importance matrix: at most 4 % more bytes, and less loss."""
    of = {one.quant: one for one in ggufs(LLAMA) if one.publisher == "bartowski"}
    one, other = (of[quant] for quant in (better, worse))

    assert one.size_bytes <= 1.04 * other.size_bytes
    assert expected_quality(one).kld < expected_quality(other).kld


def test_below_4_bits_i_quants_lose_on_a_cpu():
    """IQ3_M is nearer to the original a byte, and several times slower there than Q3_K_M."""
    model = found(LLAMA, publisher="bartowski")
    three_bits = tuple(one for one in model.candidates if one.quant in ("IQ3_M", "Q3_K_M", "IQ3_XS"))
    model = type(model)(model.base_model, three_bits)

    on_cpu, on_gpu = (
        resolve(Request("m"), model, hardware, simulated_states(hardware)) for hardware in (cpu_only(32), card(24))
    )

    assert on_cpu.chosen.candidate.quant == "Q3_K_M"
    by_quant = {one.candidate.quant: one for one in on_cpu.rejected}
    assert by_quant["IQ3_XS"].speed.decode_tps < 0.8 * on_cpu.chosen.speed.decode_tps
    assert on_gpu.chosen.candidate.quant in ("Q3_K_M", "IQ3_M")


@pytest.mark.parametrize(("k_quant", "legacy"), [("Q4_K_M", "Q4_1"), ("Q4_K_S", "Q4_0"), ("Q5_K_M", "Q5_1")])
def test_k_quants_lose_less_than_the_legacy_types(k_quant, legacy):
    """At no more bytes."""
    base = "meta-llama/Meta-Llama-3-8B-Instruct"
    of = {one.quant: one for one in ggufs(base) if one.publisher == "QuantFactory"}

    assert of[k_quant].size_bytes <= 1.01 * of[legacy].size_bytes
    assert expected_quality(of[k_quant]).kld < expected_quality(of[legacy]).kld


def test_sizes_are_those_that_guides_tell_to_expect():
    """8B: over 16 GB in 16 bits, about 4.5 GB at 4; 70B: about 35 to 43 GB at 4."""
    small = {one.quant: one.size_bytes / 1e9 for one in ggufs(LLAMA) if one.publisher == "bartowski"}
    large = {one.quant: one.size_bytes / 1e9 for one in ggufs("meta-llama/Llama-3.3-70B-Instruct")}

    assert small["IQ4_XS"] == pytest.approx(4.5, abs=0.1)
    assert large["BF16"] == pytest.approx(141, abs=1)
    assert 35 < large["IQ4_XS"] < large["Q4_K_M"] < 43


def test_trust_is_data():
    """Publishers come and go: those of the matrix are in the data file, and code names none."""
    for publisher in (
        "bartowski",
        "unsloth",
        "turboderp",
        "ArtusDev",
        "TheBloke",
        "mlx-community",
        "lmstudio-community",
    ):
        assert is_trusted(publisher)
