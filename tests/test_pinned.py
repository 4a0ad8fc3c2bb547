"""A decision of an earlier day is kept, whatever is free today: fewer slots, what is stored, or a clear refusal."""

from dataclasses import replace

import pytest

from candidates import LLAMA_3_8B, LLAMACPP, card, cpu_only, model
from qrun import errors
from qrun.pin import pin_of
from qrun.request import Request
from qrun.resolve import resolve
from qrun.source import FoundModel
from qrun.units import GIB

FOUND = model(LLAMA_3_8B)
REQUEST = Request(LLAMA_3_8B)


def decided(hardware, request=REQUEST, found=FOUND):
    """A fresh decision and the pin that keeps it."""
    resolution = resolve(request, found, hardware, (LLAMACPP,))
    return resolution, pin_of(resolution.require(), decided_at="2026-01-02T03:04:05Z")


def with_free(hardware, gib):
    """The same machine with that much free on its card today."""
    return replace(hardware, gpus=(replace(hardware.gpus[0], free_bytes=int(gib * GIB)),))


def stored(*quants):
    """The model with those quants on this disk."""
    return FoundModel(LLAMA_3_8B, tuple(replace(one, stored=one.quant in quants) for one in FOUND.candidates))


def keep(pin, hardware, found=FOUND, request=REQUEST, engines=(LLAMACPP,)):
    return resolve(request, found, hardware, engines, pin=pin)


def test_on_the_same_machine_the_kept_decision_is_the_fresh_one():
    """Nothing but the explanation differs: it says since when the choice is kept."""
    fresh, pin = decided(card(12))

    kept = keep(pin, card(12))

    assert replace(kept.chosen, why=()) == replace(fresh.chosen, why=())
    assert kept.chosen.why[-1] == "decided on 2026-01-02 and kept: --refresh decides anew"
    assert {(one.candidate.quant, one.reason) for one in kept.rejected} == {
        (one.candidate.quant, one.reason) for one in fresh.rejected
    }


def test_a_better_candidate_never_replaces_a_kept_one():
    """What is pinned wins against everything the goal would take today."""
    _, pin = decided(card(6))

    kept = keep(pin, card(24))

    assert pin.names(kept.chosen.candidate)
    assert len(kept.rejected) == len(FOUND.candidates) - 1


def test_with_less_free_memory_it_runs_with_fewer_slots_and_says_so():
    """The first thing to give way is the number of requests served at once."""
    machine = card(12)
    fresh, pin = decided(machine)
    one_slot = fresh.chosen.memory.total_bytes - (fresh.chosen.n_parallel - 1) * 2**30  # a GiB of KV cache a slot
    free_gib = one_slot / GIB + 1.5 + 0.2

    kept = keep(pin, with_free(machine, free_gib))

    assert pin.names(kept.chosen.candidate)
    assert 1 <= kept.chosen.n_parallel < fresh.chosen.n_parallel
    assert any("slots that were decided on" in warning for warning in kept.warnings)


def test_slots_that_were_asked_for_are_not_taken_away():
    """With --parallel the user has said what is needed: then the choice itself gives way."""
    machine = card(12)
    request = replace(REQUEST, n_parallel=4)
    _, pin = decided(machine, request)

    kept = keep(pin, with_free(machine, 8), stored("Q2_K"), request)

    assert kept.chosen.candidate.quant == "Q2_K"
    assert kept.chosen.n_parallel == 4


def test_where_it_does_not_fit_another_stored_one_takes_its_place():
    """No new download: of what is on the disk the best that fits is run, and the swap is told."""
    machine = card(12)
    _, pin = decided(machine)

    kept = keep(pin, with_free(machine, 7), stored("Q3_K_M", "Q2_K"))

    assert kept.chosen.candidate.quant == "Q3_K_M"
    assert any("takes its place" in warning for warning in kept.warnings)
    absent = [one for one in kept.rejected if one.reason == "filtered"]
    assert absent
    assert all("not stored" in one.detail for one in absent)


def test_where_nothing_stored_fits_the_refusal_names_need_and_room():
    """Exit 4 names the pinned file, what it needs and what is free, and the two ways on."""
    machine = card(12)
    fresh, pin = decided(machine)

    kept = keep(pin, with_free(machine, 2))

    assert kept.chosen is None
    assert isinstance(kept.error, errors.PinnedTooLarge)
    assert kept.error.exit_code == 4
    assert fresh.chosen.candidate.quant in str(kept.error)
    assert "--refresh" in str(kept.error)


def test_without_its_engine_the_refusal_is_about_the_engine():
    """A pin is no reason to blame memory: exit 7 names the engine that is gone."""
    _, pin = decided(cpu_only(32))
    gone = replace(LLAMACPP, installed=False, can_install=False, why_not="it was removed", remedy="Put it back.")

    kept = keep(pin, cpu_only(32), engines=(gone,))

    assert isinstance(kept.error, errors.EngineMissing)
    assert "it was removed" in str(kept.error)


def test_another_engine_does_not_run_the_choice_as_if_it_were_kept():
    """Its settings were found for the one that was decided on."""
    _, pin = decided(cpu_only(32))

    kept = keep(pin, cpu_only(32), engines=(replace(LLAMACPP, runner="another"),))

    assert kept.chosen is None


def test_a_context_of_auto_is_as_long_as_today_s_memory_allows():
    """`auto` asks for the longest that fits, so that is not pinned."""
    machine = card(12)
    request = replace(REQUEST, n_ctx="auto", goal="speed")
    fresh, pin = decided(machine, request)

    kept = keep(pin, with_free(machine, 9), request=request)

    assert pin.names(kept.chosen.candidate)
    assert kept.chosen.n_ctx <= fresh.chosen.n_ctx


@pytest.mark.parametrize("gib", [1, 3, 5, 7, 9, 11])
def test_whatever_is_free_every_candidate_stands_once(gib):
    """A kept decision accounts for its losers as a fresh one does."""
    machine = card(12)
    _, pin = decided(machine)

    kept = keep(pin, with_free(machine, gib), stored("Q4_K_M"))

    names = [one.candidate.files[0].path for one in kept.rejected]
    chosen = [kept.chosen.candidate.files[0].path] if kept.chosen else []
    assert sorted(names + chosen) == sorted(one.files[0].path for one in FOUND.candidates)
