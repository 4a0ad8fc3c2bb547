"""Known right answers: the choice on a machine that was worked out by hand, from the engine's own memory figures."""

import tomllib

import pytest

from candidates import LLAMACPP, card
from case_models import DATA, found, table
from qrun.engine_models import simulated_states
from qrun.errors import NothingFits
from qrun.model import FORMATS
from qrun.request import Request
from qrun.resolve import resolve
from qrun.units import GIB

CASES = tomllib.loads((DATA / "cases.toml").read_text())["case"]
NEEDS = {(row["repo_id"], row["path"], int(row["n_ctx"])): row for row in table("case_candidates.tsv")}


def machine(case):
    """The card or the Mac of a case, idle."""
    if "mac_gib" in case:
        return card(case["mac_gib"], kind="metal", ram_gib=case["mac_gib"])
    described = case["card"]
    capability = described.get("capability", "8.6")
    return card(described["gib"], ram_gib=described.get("ram_gib", 64), compute_capability=capability)


def decided(case):
    """The resolution of a case, with the request as it says."""
    formats = FORMATS if case.get("all_engines") else ("gguf",)
    request = {"goal": "quality", "n_ctx": 8192, "n_parallel": 1} | case.get("request", {})
    hardware = machine(case)
    engines = simulated_states(hardware) if case.get("all_engines") else (LLAMACPP,)
    model = found(case["model"], publisher=case.get("publisher"), formats=formats)
    return resolve(Request(case["model"], **request), model, hardware, engines)


@pytest.mark.parametrize("case", [one for one in CASES if "accepted" in one], ids=lambda case: case["what"])
def test_the_choice_is_the_known_right_answer(case):
    """Quant, KV type, placement and, for the answer itself, the engine's need."""
    resolution = decided(case)
    chosen = resolution.chosen

    assert [chosen.candidate.quant, chosen.kv_cache_type] in case["accepted"]
    assert chosen.placement.mode == "gpu"
    assert chosen.candidate.format == case.get("format", "gguf")
    if [chosen.candidate.quant, chosen.kv_cache_type] == case["accepted"][0]:
        assert chosen.memory.total_bytes / GIB == pytest.approx(case["need_gib"], abs=0.03)
    assert case.get("warns_of", "") in "".join(resolution.warnings)
    taken = {chosen.candidate.quant, *(one.candidate.quant for one in resolution.alternatives)}
    assert not taken & set(case.get("never", ()))


@pytest.mark.parametrize("case", [one for one in CASES if "mode" in one], ids=lambda case: case["what"])
def test_the_placement_is_the_known_right_answer(case):
    """Where parts lie on the CPU: which, and in how many bits."""
    chosen = decided(case).chosen
    low, high = case["bits"]

    assert chosen.placement.mode == case["mode"]
    assert low <= int(next(letter for letter in chosen.candidate.quant if letter.isdigit())) <= high


@pytest.mark.parametrize("case", [one for one in CASES if "exit" in one], ids=lambda case: case["what"])
def test_what_cannot_be_is_refused(case):
    """The exit code, the need and the budget, and the way out that there is."""
    error = decided(case).error

    assert isinstance(error, NothingFits)
    assert error.exit_code == case["exit"]
    assert "of 9.7 GiB usable memory. It would fit with --placement auto" in str(error)


def test_a_v100_is_told_why_exllama_is_out():
    """Every EXL2 and EXL3 copy is refused for the card's compute capability, with the card that would do."""
    case = next(one for one in CASES if one.get("all_engines"))
    refused = [one for one in decided(case).rejected if one.candidate.format in ("exl2", "exl3")]

    assert len(refused) == 8
    assert {(one.reason, one.would_fit) for one in refused} == {
        ("hardware_unsupported", "a GPU of compute capability 8.0 or more")
    }


def test_with_exllamav3_at_hand_its_copy_wins_on_a_card_that_runs_it():
    """On an RTX 4090 EXL3 6.0 is as good as Q8_0 to within .002 KLD, and smaller."""
    hardware = card(24, compute_capability="8.9")
    model = found("meta-llama/Llama-3.1-8B-Instruct", formats=FORMATS)

    chosen = resolve(Request("m", goal="quality"), model, hardware, simulated_states(hardware)).chosen

    assert (chosen.candidate.format, chosen.candidate.quant) == ("exl3", "6.0bpw")
    assert (chosen.placement.mode, chosen.placement.n_gpu_layers) == ("gpu", None)


@pytest.mark.parametrize("row", NEEDS.values(), ids=lambda row: f"{row['repo_id']}:{row['quant']}:{row['n_ctx']}")
def test_the_need_before_any_header_is_near_the_engines(row):
    """From label, size and config.json alone: to 6 % of llama-server's own figure, one odd label apart."""
    n_ctx = int(row["n_ctx"])
    model = found(row["base_repo_id"])
    one = next(one for one in model.candidates if (one.repo_id, one.files[0].path) == (row["repo_id"], row["path"]))
    request = Request("m", n_ctx=n_ctx, n_parallel=1, kv_type="f16", placement="gpu")

    resolution = resolve(request, type(model)(model.base_model, (one,)), card(192), (LLAMACPP,))

    if resolution.chosen is None:  # types of ik_llama.cpp, and Q4_0's interleaved forms, which llama.cpp removed
        assert row["quant"].startswith(("IQ4_K", "IQ5_K", "Q4_0_"))
        assert [one.reason for one in resolution.rejected] == ["architecture_unsupported"]
        return
    # Unsloth's Q2_K_L widens its embeddings by more than the label says anywhere else.
    apart = 0.1 if row["quant"] == "Q2_K_L" else 0.06
    assert resolution.chosen.memory.total_bytes == pytest.approx(int(row["device_f16_bytes"]), rel=apart)
