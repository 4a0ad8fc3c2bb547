"""What the engine's word on memory does to a decision."""

from dataclasses import replace

import pytest

from candidates import LLAMA_3_8B, LLAMACPP, card, cpu_only, model
from qrun.engine_memory import EngineWord, choice_confirmed, confirmed, found_without, need_told
from qrun.request import Request
from qrun.resolve import resolve
from qrun.runner import PlaceMemory
from qrun.units import GIB, MIB

FOUND = model(LLAMA_3_8B, publisher="bartowski", quants={"Q4_K_M", "Q5_K_M"})
HOST = PlaceMemory(None, 300 * MIB, 0, 24 * MIB)


def decide(found=FOUND, hardware=None):
    """The decision for a 12 GB card."""
    return resolve(Request(LLAMA_3_8B), found, hardware or card(12), (LLAMACPP,))


def word_of(resolution, *places):
    """What the engine said, as a word on the choice."""
    return EngineWord(need=need_told(places, resolution.chosen, resolution.hardware))


def test_a_need_that_fits_takes_the_place_of_ours():
    """The choice stays, its memory is the engine's, against the same budget."""
    before = decide()
    device = PlaceMemory("CUDA0", 5 * GIB, GIB, 200 * MIB)
    after = choice_confirmed(before, word_of(before, device, HOST))

    assert after.chosen.candidate == before.chosen.candidate
    assert after.chosen.memory.source == "engine"
    assert after.chosen.memory.total_bytes == 6 * GIB + 200 * MIB
    assert after.chosen.memory.host_bytes == 324 * MIB
    assert [(one.name, one.budget_bytes) for one in after.chosen.memory.devices] == [
        (one.name, one.budget_bytes) for one in before.chosen.memory.devices
    ]


@pytest.mark.parametrize(
    "places",
    [
        (PlaceMemory("CUDA0", 12 * GIB, 0, 0), HOST),
        (PlaceMemory("CUDA0", GIB, 0, 0), PlaceMemory(None, 90 * GIB, 0, 0)),
    ],
)
def test_a_need_beyond_a_budget_makes_the_choice_be_made_again(places):
    """On the device or in host RAM: the candidate is too large then, and the next one is chosen."""
    before = decide()
    word = word_of(before, *places)
    again = decide(found_without(FOUND, before, word))

    assert choice_confirmed(before, word) is None
    assert again.chosen.candidate.quant != before.chosen.candidate.quant
    (lost,) = [one for one in again.rejected if one.candidate.quant == before.chosen.candidate.quant]
    assert lost.reason == "too_large"
    assert "the engine needs" in lost.detail


def test_a_model_that_the_engine_refuses_is_unsupported():
    """Whatever the memory: its candidate stands with that reason."""
    before = decide()
    word = EngineWord(refusal="it does not know the architecture 'qwen9'")
    again = decide(found_without(FOUND, before, word))

    assert choice_confirmed(before, word) is None
    (lost,) = [one for one in again.rejected if one.candidate.quant == before.chosen.candidate.quant]
    assert lost.reason == "architecture_unsupported"
    assert "qwen9" in lost.detail


def test_an_engine_that_says_nothing_changes_nothing():
    """Our own figures stand."""
    before = decide()

    assert choice_confirmed(before, EngineWord(silence="it did not start")) is before


def test_on_the_cpu_the_host_is_the_device():
    """Mode cpu: everything is the host's, nothing lies beside it."""
    before = decide(hardware=cpu_only(16))
    need = need_told([PlaceMemory(None, 5 * GIB, GIB, MIB)], before.chosen, before.hardware)

    assert (need.total_bytes, need.host_bytes) == (6 * GIB + MIB, 0)
    assert [one.name for one in need.devices] == ["CPU"]


def test_a_split_counts_both_sides():
    """The sums are of device and host, host_bytes of the host alone."""
    before = decide(hardware=card(12))
    split = replace(before.chosen, placement=replace(before.chosen.placement, mode="split"))
    need = need_told([PlaceMemory("CUDA0", GIB, 0, 0), PlaceMemory(None, 2 * GIB, 0, 0)], split, before.hardware)

    assert (need.total_bytes, need.host_bytes) == (3 * GIB, 2 * GIB)


def test_a_device_that_takes_nothing_is_left_out():
    """The engine lists every device that it sees."""
    before = decide()
    told = [PlaceMemory("CUDA0", GIB, 0, 0), PlaceMemory("CUDA1", 0, 0, 0), HOST]

    assert len(need_told(told, before.chosen, before.hardware).devices) == 1


def test_the_choice_is_made_again_until_the_engine_agrees():
    """The first is refused, the second fits: it stands with the engine's figures, the first with its reason."""
    asked = []

    def ask(choice):
        asked.append(choice.candidate.quant)
        if len(asked) == 1:
            return EngineWord(refusal="it does not know the tensor type 139")
        return EngineWord(need=need_told([PlaceMemory("CUDA0", GIB, 0, 0), HOST], choice, card(12)))

    found, after = confirmed(decide(), FOUND, ask=ask, again=decide)

    assert after.chosen.candidate.quant == asked[1] != asked[0]
    assert after.chosen.memory.source == "engine"
    assert [one.defect.reason for one in found.candidates if one.defect] == ["architecture_unsupported"]


def test_where_the_engine_refuses_everything_there_is_nothing_left_to_choose():
    """No endless questions, and no choice that it refused."""
    _, after = confirmed(decide(), FOUND, ask=lambda _: EngineWord(refusal="no"), again=decide)

    assert after.chosen is None
    assert {one.reason for one in after.rejected} == {"architecture_unsupported"}
