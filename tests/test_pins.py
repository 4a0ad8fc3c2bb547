"""Kept decisions come back as they were, for the same request on the same machine, and for nothing else."""

import json
import tempfile
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candidates import LLAMA_3_8B, LLAMACPP, QWEN_30B_A3B, card, cpu_only, model
from qrun.hub_info import HubFile
from qrun.model import Defect, ModelFile
from qrun.pin import pin_of
from qrun.pin_json import KeptDecision, PinDamaged, decision_of, json_of
from qrun.pins import PinStore, machine_of, options_of, request_of
from qrun.request import Request
from qrun.resolve import resolve
from qrun.source import FoundModel
from qrun.units import GIB

REQUEST = Request(LLAMA_3_8B)
MACHINE = card(12)


def decision(request=REQUEST, hardware=MACHINE, found=None):
    """A decision as it is kept."""
    found = found or model(LLAMA_3_8B)
    chosen = resolve(request, found, hardware, (LLAMACPP,)).require()
    pin = pin_of(chosen, decided_at="2026-01-02T03:04:05Z")
    return KeptDecision(pin, found, options_of(request), machine_of(hardware))


def of_every_kind():
    """Candidates with everything that one can carry."""
    whole, moe = model(LLAMA_3_8B).candidates[0], model(QWEN_30B_A3B).candidates[0]
    return (
        whole,
        moe,
        replace(whole, files=(ModelFile("a.gguf", 1, "ab"), HubFile("config.json", 2, None, "cd")), ref="6_5"),
        replace(whole, shape=None, weights=None, defect=Defect("unsafe", "a pickle")),
        replace(whole, weights=replace(whole.weights, estimated=True), downloads=3, stored=True, revision="c" * 40),
    )


def test_a_decision_comes_back_from_its_json_as_it_was():
    """Every field of every kind of candidate survives the way through text."""
    found = FoundModel(LLAMA_3_8B, (*of_every_kind(), decision().chosen), ("left out: 3",))
    kept = replace(decision(), found=found)

    assert decision_of(json.loads(json.dumps(json_of(kept)))) == kept


def test_a_model_s_shape_is_written_once():
    """Forty quants of one model cost one list of layers."""
    document = json_of(decision())

    assert len(document["shapes"]) == 1
    assert len(document["shapes"][0]["layers"]) == 1
    assert len(json.dumps(document)) < 1500 * len(document["candidates"])


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"schema": 2}', '{"schema": 1, "shapes": [1]}'])
def test_what_is_no_decision_is_refused_in_one_way(text):
    """A damaged document is a PinDamaged, whatever is wrong with it."""
    document = json.loads(text) if text else None

    with pytest.raises(PinDamaged):
        decision_of(document)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_no_document_makes_the_reader_crash(document):
    """Whatever JSON stands there, it is a decision or PinDamaged."""
    with pytest.raises(PinDamaged):
        decision_of({"schema": 1, "pin": document, "candidates": document, "shapes": document})


@pytest.mark.parametrize("request_", [REQUEST, replace(REQUEST, gpus=(0, 2), engines=("a",), n_ctx="auto")])
def test_a_request_comes_back_from_its_options(request_):
    """What is kept of a request is all of it."""
    assert request_of(json.loads(json.dumps(options_of(request_)))) == request_


def test_a_pin_that_names_none_of_its_candidates_is_damaged():
    """Nobody could say what was chosen."""
    document = json_of(decision()) | {"candidates": []}

    with pytest.raises(PinDamaged):
        decision_of(document)


@pytest.mark.parametrize(
    "changed", [{"n_ctx": "many"}, {"n_parallel": 0}, {"kv_cache_type": "q5"}, {"mode": "moon"}, {"path": 3}]
)
def test_a_pin_with_a_value_of_the_wrong_kind_is_damaged(changed):
    """What another hand has written into the file is decided anew, and is no bug of ours."""
    document = json_of(decision())
    document["pin"] |= changed

    with pytest.raises(PinDamaged):
        decision_of(document)


def test_the_same_request_on_the_same_machine_finds_its_decision(tmp_path):
    """What is free and what nothing decides does not count."""
    store = PinStore(tmp_path / "pins")
    store.put(REQUEST, MACHINE, decision())
    busy = replace(MACHINE, ram_free_bytes=GIB, gpus=(replace(MACHINE.gpus[0], free_bytes=GIB),), notes=("a note",))

    assert store.get(REQUEST, busy) == decision()
    assert list(store.all()) == [decision()]


@pytest.mark.parametrize(
    ("request_", "machine"),
    [
        (replace(REQUEST, model="llama3:8b"), MACHINE),
        (replace(REQUEST, goal="speed"), MACHINE),
        (replace(REQUEST, n_ctx=4096), MACHINE),
        (replace(REQUEST, gpus=()), MACHINE),
        (replace(REQUEST, max_kld=0.1), MACHINE),
        (REQUEST, card(24)),
        (REQUEST, card(12, count=2)),
        (REQUEST, cpu_only(64)),
        (REQUEST, replace(MACHINE, simulated=True, name="that of a file")),
        (REQUEST, replace(MACHINE, ram_limit_bytes=8 * GIB)),
    ],
)
def test_another_request_or_machine_has_no_decision(tmp_path, request_, machine):
    """MODEL's text, each option that decides, and the hardware are the key."""
    store = PinStore(tmp_path)
    store.put(REQUEST, MACHINE, decision())

    assert store.get(request_, machine) is None


def test_a_newer_decision_replaces_the_older(tmp_path):
    """One file a request: nothing piles up, and no half-written file stays."""
    store = PinStore(tmp_path)
    store.put(REQUEST, MACHINE, decision())
    newer = replace(decision(), pin=replace(decision().pin, decided_at="2026-02-02T00:00:00Z"))
    store.put(REQUEST, MACHINE, newer)

    assert store.get(REQUEST, MACHINE) == newer
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_file_is_as_if_it_were_not_there(tmp_path):
    """A torn pin costs a new decision, never an error."""
    store = PinStore(tmp_path)
    store.put(REQUEST, MACHINE, decision())
    file = next(tmp_path.iterdir())
    file.write_text(file.read_text()[:100])

    assert store.get(REQUEST, MACHINE) is None
    assert list(store.all()) == []


def test_what_fails_to_be_written_leaves_the_decision_before(tmp_path, monkeypatch):
    """A full disk loses neither the old decision nor leaves a part of the new one."""
    store = PinStore(tmp_path)
    store.put(REQUEST, MACHINE, decision())

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkstemp", full)
    newer = replace(decision(), pin=replace(decision().pin, decided_at="2026-02-02T00:00:00Z"))
    with pytest.raises(OSError, match="No space"):
        store.put(REQUEST, MACHINE, newer)

    assert store.get(REQUEST, MACHINE) == decision()
    assert len(list(tmp_path.iterdir())) == 1
