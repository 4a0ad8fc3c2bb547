"""The JSON of `qrun resolve` is a contract: its keys, their order and their types are pinned."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from candidates import LLAMA_3_8B, LLAMACPP, QWEN_30B_A3B, candidate, card, cpu_only, model
from qrun.errors import ModelNotFound
from qrun.model import ModelFile
from qrun.request import Request
from qrun.resolution import Resolution
from qrun.resolution_json import to_json
from qrun.resolve import resolve

CONTRACT = json.loads((Path(__file__).parent / "data" / "resolve_contract.json").read_text())
TYPES = {"str": str, "int": int, "float": float, "bool": bool, "null": type(None)}


def decided(found, hardware, **options):
    return to_json(resolve(Request("m", **options), found, hardware, [LLAMACPP]))


def check(value, expected, path="$"):
    """Hold `value` against the contract: objects key by key in order, lists item by item, leaves by their types."""
    if isinstance(expected, dict):
        assert isinstance(value, dict), path
        assert list(value) == list(expected), path
        for key, inner in expected.items():
            check(value[key], inner, f"{path}.{key}")
    elif isinstance(expected, list):
        assert isinstance(value, list), path
        for index, item in enumerate(value):
            check(item, expected[0], f"{path}[{index}]")
    elif isinstance(expected, str) and expected.startswith("@"):
        names = expected[1:].split("|")
        if value is None and "null" in names:
            return
        named = [name for name in names if name != "null"]
        check(value, CONTRACT[named[0]], path) if named[0] in CONTRACT else _check_leaf(value, names, path)
    else:
        assert value == expected, path


def _check_leaf(value, names, path):
    # bool is an int to Python and not to JSON.
    assert type(value) in [TYPES[name] for name in names], f"{path}: {value!r} is not {names}"


@pytest.mark.parametrize(
    ("found", "hardware", "options"),
    [
        (model(LLAMA_3_8B), card(24, bandwidth_bytes_per_s=1008e9), {}),
        (model(LLAMA_3_8B), card(8, count=2), {"n_ctx": 4096, "n_parallel": 2}),
        (model(LLAMA_3_8B), cpu_only(16), {"goal": "quality", "kv_type": "q8_0", "quant": "Q4_K_M"}),
        (model(LLAMA_3_8B), card(16, kind="metal", ram_gib=16), {"n_ctx": "auto"}),
        (model(QWEN_30B_A3B), card(8, ram_gib=32), {"format": "gguf", "engine": "llamacpp"}),
        (model(LLAMA_3_8B), cpu_only(3), {}),
        (model(LLAMA_3_8B), card(24), {"quant": "Q9_9"}),
    ],
)
def test_every_document_keeps_the_contract(found, hardware, options):
    """Chosen or refused, on every kind of machine: the same keys in the same order, of the same types."""
    check(decided(found, hardware, **options), CONTRACT["document"])


def test_the_document_survives_json():
    """Nothing in it is a Python value that JSON lacks, and no figure is infinite."""
    document = decided(model(LLAMA_3_8B), card(24, count=3))

    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_the_request_is_echoed_with_null_for_what_was_not_set():
    """`n_ctx` alone shows what was decided."""
    echo = decided(model(LLAMA_3_8B), card(24))["request"]

    assert echo == {
        "model": "m",
        "goal": "balanced",
        "n_ctx": 8192,
        "n_parallel": None,
        "vision": None,
        "placement": "auto",
        "quant": None,
        "format": None,
        "engine": None,
        "kv_type": "auto",
    }


def test_files_bytes_and_bpw_are_the_candidates_own():
    """Bpw is 8 times the weight bytes over the parameters; a sha256 nobody read is null."""
    chosen = decided(model(LLAMA_3_8B, quants={"Q4_K_M"}, publisher="bartowski"), card(24))["chosen"]

    assert chosen["files"] == [
        {"path": "Meta-Llama-3-8B-Instruct-Q4_K_M.gguf", "size_bytes": 4916122080, "sha256": None}
    ]
    assert chosen["bpw"] == pytest.approx(4.89, abs=0.01)
    assert (chosen["publisher"], chosen["quant"], chosen["format"]) == ("bartowski", "Q4_K_M", "gguf")


def test_the_memory_adds_up():
    """total_bytes is the sum of its three parts, and of the devices'."""
    for hardware in (card(24), card(8, count=2), cpu_only(32)):
        memory = decided(model(LLAMA_3_8B), hardware)["chosen"]["memory"]

        parts = memory["weights_bytes"] + memory["kv_cache_bytes"] + memory["compute_bytes"]
        assert memory["total_bytes"] == parts == sum(one["total_bytes"] for one in memory["devices"])


def test_a_tensor_split_sums_to_one_in_the_order_of_the_gpus():
    """One device: null. Several: proportions."""
    one = decided(model(LLAMA_3_8B), card(24))["chosen"]["placement"]
    two = decided(model(LLAMA_3_8B, quants={"Q8_0"}), card(8, count=2))["chosen"]["placement"]

    assert one == {"mode": "gpu", "n_gpu_layers": 33, "n_cpu_moe": 0, "tensor_split": None}
    assert two["mode"] == "gpu"
    assert sum(two["tensor_split"]) == pytest.approx(1)


def test_a_rejection_says_what_would_let_it_in():
    """The contract's own example: too large, with need, budget and the card that would do."""
    rejected = decided(model(LLAMA_3_8B, publisher="bartowski"), card(8))["rejected"]
    q8_0 = next(one for one in rejected if one["quant"] == "Q8_0")

    speed, quality = q8_0.pop("speed"), q8_0.pop("quality")
    assert quality["kld"] == 0.001355
    assert speed["low"] < speed["decode_tps"] < speed["high"]
    assert q8_0 == {
        "repo_id": "bartowski/Meta-Llama-3-8B-Instruct-GGUF",
        "path": "Meta-Llama-3-8B-Instruct-Q8_0.gguf",
        "quant": "Q8_0",
        "format": "gguf",
        "engine": "llamacpp",
        "reason": "too_large",
        "detail": "needs 8.1 GiB of 6.5 GiB whole on the GPU",
        "would_fit": "a card with 9.6 GiB free",
        "size_bytes": 8536158688,
        "memory_bytes": q8_0["memory_bytes"],
    }
    assert q8_0["memory_bytes"] > q8_0["size_bytes"] - 600 * 2**20


def test_a_refusal_has_no_choice_and_carries_its_exit_code():
    """`chosen` is null, `error` has exit, name, message and nearest."""
    document = decided(model(LLAMA_3_8B, publisher="bartowski"), card(24), quant="Q5_1")

    assert document["chosen"] is None
    assert (document["error"]["exit"], document["error"]["name"]) == (3, "quant_not_found")
    assert "Q4_K_M" in document["error"]["nearest"]


def test_a_model_that_was_not_found_is_told_in_the_same_document():
    """Whatever failed, programs read one shape."""
    error = ModelNotFound("m", "a folder", ("Llama-3-8B-Instruct",))
    document = to_json(Resolution(Request("m"), None, None, cpu_only(16), None, error=error))

    check(document, CONTRACT["document"])
    assert document["base_model"] == {"repo_id": None}
    assert document["error"]["nearest"] == ["Llama-3-8B-Instruct"]


def test_finetune_has_the_keys_of_a_choice_and_the_line_that_loads_it():
    """Engine null, format bnb, quant nf4; what is not known is null."""
    document = decided(model(LLAMA_3_8B), card(24), goal="finetune")
    chosen = document["chosen"]

    assert list(chosen) == [*CONTRACT["choice"], "load"]
    assert (chosen["engine"], chosen["format"], chosen["quant"]) == (None, "bnb", "nf4")
    assert chosen["memory"] is None
    assert "BitsAndBytesConfig" in chosen["load"]
    assert document["error"] is None


@pytest.mark.parametrize(
    ("format_", "quant", "bpw"), [("exl2", "4.25bpw", 4.25), ("exl3", "3.5bpw", 3.5), ("exl2", "odd", None)]
)
def test_exl_bpw_is_the_nominal_figure(format_, quant, bpw):
    """For EXL2 and EXL3 the label's figure, whatever the bytes say."""
    one = replace(candidate("Q4_K_M"), format=format_, quant=quant, files=(ModelFile("w", 1),))
    engine = replace(LLAMACPP, formats=frozenset({"exl2", "exl3"}))
    found = replace(model(LLAMA_3_8B), candidates=(one,))

    document = to_json(resolve(Request("m"), found, card(24), [engine]))

    assert document["chosen"]["bpw"] == bpw
