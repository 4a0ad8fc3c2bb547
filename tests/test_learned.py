"""What was seen on this machine corrects the next prediction, and the choice says so."""

from dataclasses import replace

import pytest

from candidates import LLAMA_3_8B, LLAMACPP, candidate_of, rows
from qrun.hardware import Cpu, Device, Hardware
from qrun.learned import NOTHING_LEARNED, Learned, Observation, key_of
from qrun.learned_store import LearnedStore
from qrun.request import Request
from qrun.resolution_json import to_json
from qrun.resolve import resolve
from qrun.source import FoundModel
from qrun.units import GIB, MIB

MACHINE = Hardware("test", "linux", Cpu("a CPU", "x86_64"), 64 * GIB)
CARD = replace(MACHINE, gpus=(Device("a card", "cuda", 12 * GIB),))
QUANTS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
FOUND = FoundModel(
    LLAMA_3_8B,
    tuple(
        {
            row["quant"]: candidate_of(row) for row in rows() if row["model"] == LLAMA_3_8B and row["quant"] in QUANTS
        }.values()
    ),
)


def decide(learned=NOTHING_LEARNED, hardware=CARD, **options):
    """The choice among four quants of Llama 3 8B."""
    return resolve(Request(LLAMA_3_8B, **options), FOUND, hardware, [LLAMACPP], learned=learned)


def seen(choice, **facts):
    """What a load of `choice` taught."""
    placement = choice.placement
    facts = {"taken_bytes": choice.memory.total_bytes} | facts
    return Observation(
        key=key_of(choice.candidate, choice.engine),
        engine=choice.engine,
        mode=placement.mode,
        n_gpu_layers=placement.n_gpu_layers,
        n_cpu_moe=placement.n_cpu_moe,
        place="gpu" if placement.on_gpu else "ram",
        promised_bytes=choice.memory.total_bytes,
        budget_bytes=CARD.gpus[0].budget_bytes,
        seen_at="2026-11-24T10:00:00+00:00",
        **facts,
    )


def test_a_measured_rate_replaces_the_prediction_and_is_named():
    """The same files placed the same: its rate counts, with a narrow range; JSON and `why` say so."""
    chosen = decide().chosen
    learned = Learned((seen(chosen, decode_tps=44.0, prefill_tps=900.0, model_tps=chosen.speed.decode_tps),))

    again = decide(learned, quant=chosen.candidate.quant)
    document = to_json(again)["chosen"]

    assert document["speed"]["decode_tps"] == 44.0
    assert document["speed"]["prefill_tps"] == 900.0
    assert document["speed"]["source"] == "measured"
    assert document["speed"]["low"] < 44.0 < document["speed"]["high"]
    assert any("44.0 tokens/s were measured" in line for line in document["why"])


def test_other_quants_are_scaled_alike_so_that_none_wins_by_not_being_measured():
    """A machine of half the predicted speed is so for every quant: the choice stays."""
    before = decide()
    rate = before.chosen.speed.decode_tps
    learned = Learned((seen(before.chosen, decode_tps=rate / 2, model_tps=rate),))

    after = decide(learned)
    others = {one.candidate.quant: one.speed.decode_tps for one in before.alternatives}

    assert after.chosen.candidate == before.chosen.candidate
    for one in after.alternatives:
        assert one.speed.decode_tps == pytest.approx(others[one.candidate.quant] / 2)


def test_a_scale_is_told_where_the_choice_itself_was_not_measured():
    """Visible in the explanation."""
    before = decide(quant="Q4_K_M").chosen
    learned = Learned((seen(before, decode_tps=10.0, model_tps=20.0),))

    chosen = decide(learned, quant="Q6_K").chosen

    assert chosen.speed.source != "measured"
    assert any("speed times 0.50" in line for line in chosen.why)


def test_memory_beyond_the_promise_is_held_back_from_the_next_choice():
    """On a card where it only just fitted the next smaller quant is taken, and the explanation says why."""
    options = {"goal": "quality", "n_parallel": 1, "kv_type": "f16"}
    before = decide(**options)
    need = before.chosen.memory.total_bytes
    tight = replace(CARD, gpus=(replace(CARD.gpus[0], free_bytes=need + 1536 * MIB + 100 * MIB),))
    learned = Learned((seen(before.chosen, taken_bytes=need + 200 * MIB),))

    assert decide(hardware=tight, **options).chosen.candidate == before.chosen.candidate
    after = decide(learned, hardware=tight, **options).chosen
    assert after.candidate != before.chosen.candidate
    assert any("200.0 MiB of GPU memory held back" in line for line in after.why)


def test_what_failed_for_memory_is_not_chosen_again_in_the_same_room():
    """A load that failed although it was to fit: what it needed was not there, and less is counted on."""
    before = decide(goal="quality")
    failed = seen(before.chosen, taken_bytes=None)

    after = decide(Learned((failed,)), goal="quality", n_parallel=before.chosen.n_parallel)

    assert after.chosen.memory.total_bytes < before.chosen.memory.total_bytes
    assert any("a load that was to fit ran out of memory on 2026-11-24" in line for line in after.chosen.why)


def test_a_later_load_of_as_much_makes_a_failure_past():
    """Another program may have had the memory that day."""
    before = decide(goal="quality")
    failed, loaded = seen(before.chosen, taken_bytes=None), seen(before.chosen)

    assert decide(Learned((failed, loaded)), goal="quality").chosen.candidate == before.chosen.candidate
    assert Learned((loaded, failed)).held_back("gpu") > 0


def test_no_observation_takes_more_than_a_quarter_of_a_budget_nor_scales_beyond_four():
    """One bad day must not put every model out of reach."""
    chosen = decide().chosen
    mad = seen(chosen, taken_bytes=10**15, decode_tps=1.0, model_tps=10**6)
    card = Learned((mad,)).on(CARD).gpus[0]

    assert card.budget_bytes == pytest.approx(0.75 * CARD.gpus[0].budget_bytes, rel=0.001)
    assert Learned((mad,)).scale("llamacpp", chosen.placement.mode) == 0.25


def test_loads_that_took_less_give_nothing_away():
    """A prediction on the safe side stays one; and nothing learned changes nothing."""
    chosen = decide().chosen

    assert Learned((seen(chosen, taken_bytes=1),)).on(CARD) == CARD
    assert NOTHING_LEARNED.on(CARD) is CARD


def test_what_is_kept_is_read_again_by_machine(tmp_path):
    """Another machine, and simulated hardware, learn nothing of it."""
    store, chosen = LearnedStore(tmp_path), decide().chosen
    observation = seen(chosen, decode_tps=44.0, model_tps=50.0)
    store.add(CARD, [observation])

    assert store.get(CARD) == Learned((observation,))
    assert store.get(MACHINE) == NOTHING_LEARNED
    assert store.get(replace(CARD, simulated=True, name="simulated")) == NOTHING_LEARNED


def test_a_newer_observation_takes_the_place_of_the_older_and_keeps_its_rates(tmp_path):
    """A load without a request teaches memory; what was measured before it stays known."""
    store, chosen = LearnedStore(tmp_path), decide().chosen
    store.add(CARD, [seen(chosen, decode_tps=44.0, prefill_tps=9.0, model_tps=50.0, taken_bytes=1)])
    store.add(CARD, [seen(chosen, taken_bytes=2)])

    (kept,) = store.get(CARD).observations
    assert (kept.taken_bytes, kept.decode_tps, kept.prefill_tps, kept.model_tps) == (2, 44.0, 9.0, 50.0)


def test_the_file_is_bounded(tmp_path):
    """The newest stay."""
    store, chosen = LearnedStore(tmp_path), decide().chosen
    store.add(CARD, [replace(seen(chosen), key=f"llamacpp {number}") for number in range(300)])

    kept = store.get(CARD).observations
    assert len(kept) == 200
    assert (kept[0].key, kept[-1].key) == ("llamacpp 100", "llamacpp 299")


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"schema": 9, "seen": []}', '{"schema": 1, "seen": [{"key": 1}]}'])
def test_a_damaged_file_is_as_none_and_is_replaced(tmp_path, damage):
    """Nothing of it stops a choice."""
    store, chosen = LearnedStore(tmp_path), decide().chosen
    store.add(CARD, [seen(chosen)])
    (path,) = (tmp_path / "learned").glob("*.json")
    path.write_text(damage)

    assert store.get(CARD) == NOTHING_LEARNED
    store.add(CARD, [seen(chosen)])
    assert store.get(CARD) == Learned((seen(chosen),))
