"""The decision: the goals' rules to the letter, the known right answers, one reason for every loser."""

import random
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candidates import (
    LLAMA_3_8B,
    LLAMACPP,
    QWEN_14B,
    QWEN_30B_A3B,
    candidate,
    candidate_of,
    card,
    cpu_only,
    model,
    rows,
)
from qrun import errors
from qrun.model import Candidate, Defect, ModelFile
from qrun.request import GOALS, Request
from qrun.resolution import REASONS, EngineState
from qrun.resolution_json import to_json
from qrun.resolve import resolve
from qrun.source import FoundModel
from qrun.units import GIB

ENGINES = (LLAMACPP,)
CHOOSING_GOALS = [goal for goal in GOALS if goal != "finetune"]


def decide(found, hardware, states=ENGINES, **options):
    return resolve(Request(found.base_model, **options), found, hardware, states)


def reasons(resolution):
    return {rejection.candidate.quant: rejection.reason for rejection in resolution.rejected}


# Rows of the project's known right answers (llama-server's own memory figures decide them).
@pytest.mark.parametrize(
    ("name", "hardware", "options", "answer"),
    [
        (LLAMA_3_8B, card(24), {}, ("Q8_0", "f16", 8.55)),
        (LLAMA_3_8B, card(8), {}, ("Q6_K", "q8_0", 6.38)),
        (LLAMA_3_8B, card(6), {"n_ctx": 4096}, ("Q4_K_S", "q8_0", 4.46)),
        (QWEN_14B, card(16), {}, ("Q6_K", "f16", 12.32)),
        (QWEN_30B_A3B, card(24), {"n_ctx": 32768, "placement": "gpu"}, ("Q5_K_M", "q8_0", 21.74)),
    ],
)
def test_the_best_quality_that_fits_is_the_known_right_answer(name, hardware, options, answer):
    """Goal quality, one slot, an idle card: the file, the KV type and the need are those that were worked out."""
    quant, kv_type, gib = answer

    chosen = decide(model(name), hardware, goal="quality", n_parallel=1, **options).chosen

    assert (chosen.candidate.quant, chosen.kv_cache_type, chosen.placement.mode) == (quant, kv_type, "gpu")
    assert chosen.memory.total_bytes / GIB == pytest.approx(gib, abs=0.02)


def test_a_mixture_on_a_small_card_keeps_its_experts_in_ram():
    """A 4- to 6-bit quant with experts on the CPU, not a 1-bit one on the GPU: the active bytes decide speed."""
    chosen = decide(model(QWEN_30B_A3B), card(8, ram_gib=32, bandwidth_bytes_per_s=272e9)).chosen

    assert chosen.placement.mode == "experts-on-cpu"
    assert chosen.candidate.quant.removeprefix("UD-")[1] in "456"


@pytest.mark.parametrize(
    ("gib", "goal", "quant"),
    [
        (24, "balanced", "Q5_K_M"),  # ample memory gives Q5_K_M-class
        (8, "balanced", "Q5_K_M"),  # whole on the card, rather than Q8_0 half on the CPU
        (24, "speed", "IQ4_XS"),
        (6, "balanced", "IQ4_XS"),  # tight memory gives the best that fits wholly on the card
    ],
)
def test_a_goal_chooses_by_its_own_rule(gib, goal, quant):
    """Llama-3-8B of one publisher that makes all quants, on cards of several sizes."""
    chosen = decide(model(LLAMA_3_8B, publisher="bartowski"), card(gib), goal=goal).chosen

    assert (chosen.candidate.quant, chosen.placement.mode) == (quant, "gpu")


def test_speed_never_takes_a_quant_above_the_bound():
    """IQ2_XXS is the fastest to read, and is not chosen for it."""
    chosen = decide(model(LLAMA_3_8B, publisher="bartowski"), card(24), goal="speed").chosen

    assert chosen.quality.kld <= 0.09


def test_speed_without_an_acceptable_quant_takes_the_least_loss():
    """Where nothing has a KLD of at most .09, speed is not bought with what is left of the quality."""
    found = model(LLAMA_3_8B, publisher="bartowski", quants={"IQ2_XXS", "IQ2_M", "Q2_K"})

    assert decide(found, card(24), goal="speed").chosen.candidate.quant == "IQ2_M"


def test_quality_takes_the_smallest_of_those_that_are_as_good():
    """F16 fits too, and gains less than .002 KLD."""
    resolution = decide(model(LLAMA_3_8B, publisher="bartowski"), card(24), goal="quality")

    assert resolution.chosen.candidate.quant == "Q8_0"
    assert reasons(resolution)["F16"] == "slower"
    assert reasons(resolution)["Q6_K"] == "worse_quality"


def test_a_slower_placement_waits_until_nothing_acceptable_fits_the_card():
    """On 8 GB Q8_0 would fit with layers on the CPU: it is too large, with what would let it in."""
    resolution = decide(model(LLAMA_3_8B, publisher="bartowski"), card(8), goal="quality")
    loser = next(one for one in resolution.rejected if one.candidate.quant == "Q8_0")

    assert loser.reason == "too_large"
    assert loser.detail == "needs 8.1 GiB of 6.5 GiB whole on the GPU"
    assert loser.would_fit == "a card with 9.6 GiB free"


def test_a_quant_that_is_named_may_be_split():
    """Where it is the only one there is, the slower placement is used."""
    chosen = decide(model(LLAMA_3_8B), card(8), quant="q8_0").chosen

    assert (chosen.candidate.quant, chosen.placement.mode) == ("Q8_0", "split")


def test_with_placement_any_all_placements_compete():
    """Quality alone then takes the best quant, on the CPU if need be."""
    chosen = decide(model(LLAMA_3_8B), card(8), goal="quality", placement="any").chosen

    assert chosen.candidate.quant == "Q8_0"
    assert chosen.placement.mode in ("split", "cpu")


def test_on_a_cpu_the_budget_is_ram():
    """Mode cpu, one slot, and the need held against RAM less 2 GiB."""
    chosen = decide(model(LLAMA_3_8B), cpu_only(10)).chosen

    assert (chosen.placement.mode, chosen.n_parallel) == ("cpu", 1)
    assert chosen.memory.total_bytes + chosen.memory.host_bytes <= 8 * GIB
    assert chosen.memory.devices[0].budget_bytes == 8 * GIB


def test_what_ram_is_left_goes_to_the_prompt_cache():
    """It is counted in host_bytes, and changes nothing of the choice."""
    small, large = (decide(model(LLAMA_3_8B), card(24, ram_gib=gib)).chosen for gib in (6, 64))

    assert small.candidate == large.candidate
    assert large.cache_ram_bytes == 8 * GIB
    assert small.cache_ram_bytes < 4 * GIB
    assert large.memory.host_bytes - large.cache_ram_bytes == small.memory.host_bytes - small.cache_ram_bytes


def test_the_context_is_8192_or_the_models_where_that_is_less():
    """Unset means the default, never more than the model has."""
    short = candidate("Q4_K_M")
    short = FoundModel(LLAMA_3_8B, (replace(short, shape=replace(short.shape, n_ctx_train=2048)),))

    assert decide(model(QWEN_14B), card(24)).chosen.n_ctx == 8192
    assert decide(short, card(24)).chosen.n_ctx == 2048


def test_ctx_auto_lengthens_what_was_chosen_at_the_default():
    """The choice is that of the default context; then the context grows, and the slots do not."""
    default = decide(model(QWEN_14B), card(16))
    auto = decide(model(QWEN_14B), card(16), n_ctx="auto")

    assert auto.chosen.candidate == default.chosen.candidate
    assert auto.chosen.n_parallel == 1
    assert 8192 < auto.chosen.n_ctx == auto.n_ctx <= 32768


def test_slots_rise_only_where_none_were_asked_for():
    """Up to 4 where they fit; a number that was given is kept."""
    assert decide(model(LLAMA_3_8B), card(24)).chosen.n_parallel == 4
    assert decide(model(LLAMA_3_8B), card(24), n_parallel=2).chosen.n_parallel == 2


def test_a_context_longer_than_the_models_is_a_usage_error():
    """Exit 2, with both numbers."""
    error = decide(model(LLAMA_3_8B), card(24), n_ctx=9000).error

    assert isinstance(error, errors.ContextTooLong)
    assert (error.exit_code, error.n_ctx, error.n_ctx_train) == (2, 9000, 8192)


def test_a_quant_that_is_not_there_names_those_that_are():
    """Exit 3, with the quants."""
    error = decide(model(LLAMA_3_8B, publisher="bartowski"), card(24), quant="Q5_1").error

    assert isinstance(error, errors.QuantNotFound)
    assert {"Q4_K_M", "Q8_0"} <= set(error.nearest)


def test_a_format_that_is_not_there_names_those_that_are():
    """Exit 3, with the formats."""
    error = decide(model(LLAMA_3_8B), card(24), format="exl2").error

    assert isinstance(error, errors.FormatNotFound)
    assert (error.exit_code, list(error.nearest)) == (3, ["gguf"])


def test_an_engine_that_is_none_is_a_usage_error():
    """Exit 2, with the runners there are."""
    error = decide(model(LLAMA_3_8B), card(24), engine="llamacp").error

    assert isinstance(error, errors.UsageError)
    assert "llamacpp" in str(error)


def test_nothing_fits_says_what_would():
    """Exit 4 names the need, the budget, the context that fits, and the memory that would do."""
    resolution = decide(model(LLAMA_3_8B, quants={"Q4_K_M"}), cpu_only(7.3), kv_type="f16")

    assert isinstance(resolution.error, errors.NothingFits)
    assert resolution.error.exit_code == 4
    assert resolution.chosen is None
    assert str(resolution.error) == (
        f"nothing of {LLAMA_3_8B} fits: the smallest needs 5.7 GiB of 5.3 GiB usable memory. It would fit with "
        "--ctx 4864 (Q4_K_M), or with --kv-type q8_0 (Q4_K_M), or on a machine with 7.7 GiB of RAM free. The next "
        "smaller model of the family whose weights would fit is meta-llama/Llama-3.2-3B-Instruct, in Q4_K_M about "
        "1.8 GiB of weights."
    )


def test_the_context_that_nothing_fits_offers_does_fit():
    """What the error promises is kept."""
    found = model(LLAMA_3_8B, quants={"Q4_K_M"})

    assert decide(found, cpu_only(7.3), kv_type="f16", n_ctx=4864).chosen
    assert not decide(found, cpu_only(7.3), kv_type="f16", n_ctx=4864 + 256).chosen


def test_the_memory_that_a_loser_would_need_does_hold_it():
    """`would_fit` is kept too: a card with that much free holds the file."""
    resolution = decide(model(LLAMA_3_8B, publisher="bartowski"), card(8), goal="quality")
    for loser in [one for one in resolution.rejected if one.reason == "too_large"]:
        gib = float(loser.would_fit.split()[3])
        found = FoundModel(LLAMA_3_8B, (loser.candidate,))

        assert decide(found, card(gib), placement="gpu", n_parallel=1).chosen, loser


def test_placement_gpu_refuses_what_would_fit_elsewhere():
    """Exit 4, and the way out is named."""
    error = decide(model(LLAMA_3_8B, quants={"Q8_0"}), card(6), placement="gpu").error

    assert isinstance(error, errors.NothingFits)
    assert "with --placement auto (Q8_0, parts of it on the CPU)" in str(error)


def test_placement_gpu_without_a_gpu_is_refused():
    """There is no GPU memory to be whole in."""
    error = decide(model(LLAMA_3_8B), cpu_only(64), placement="gpu").error

    assert isinstance(error, errors.NothingFits)


def test_floors_keep_out_what_is_below_them():
    """`--max-kld` and `--min-tps` are reasons like others."""
    hardware = card(24, bandwidth_bytes_per_s=1008e9)
    resolution = decide(model(LLAMA_3_8B, publisher="bartowski"), hardware, max_kld=0.03, min_tps=100)

    assert resolution.chosen.quality.kld <= 0.03
    assert resolution.chosen.speed.decode_tps >= 100
    assert reasons(resolution)["Q3_K_M"] == "worse_quality"
    assert reasons(resolution)["F16"] == "slower"


def test_floors_that_nothing_passes_name_the_nearest_miss():
    """Exit 4."""
    hardware = card(24, bandwidth_bytes_per_s=1008e9)
    resolution = decide(model(LLAMA_3_8B, quants={"Q8_0", "Q4_K_M"}), hardware, min_tps=1000)

    assert isinstance(resolution.error, errors.FloorMissed)
    assert resolution.error.exit_code == 4
    assert "--min-tps 1000. Nearest is Q4_K_M with about" in str(resolution.error)


def test_a_great_loss_warns_and_names_the_better_use():
    """KLD over .3: a smaller model at 4 bits."""
    resolution = decide(model(LLAMA_3_8B, publisher="bartowski", quants={"IQ2_XXS"}), card(24))

    assert resolution.warnings == (
        "IQ2_XXS loses much (KLD 0.81): a model of about 4B parameters at Q4_K_M is the better use of this memory.",
    )


def test_what_the_source_says_is_passed_on():
    """A looser name's warning reaches the user."""
    found = replace(model(LLAMA_3_8B), warnings=("taken as that",))

    assert "taken as that" in decide(found, card(24)).warnings


def test_among_equals_the_more_trusted_publisher_wins():
    """The same quant of two publishers: the one in the list of trust, and the other is no worse."""
    found = model(LLAMA_3_8B, quants={"Q8_0"})
    resolution = decide(found, card(24))

    assert {one.publisher for one in found.candidates} == {"bartowski", "QuantFactory"}
    assert resolution.chosen.candidate.publisher == "bartowski"
    assert [one.reason for one in resolution.rejected] == ["same_as_chosen"]


def test_defects_are_reasons_of_their_own():
    """A candidate that cannot be taken keeps the reason its source found."""
    kinds = ("incomplete", "mislabelled", "unsafe", "architecture_unsupported", "access_denied")
    broken = tuple(
        replace(candidate(quant), defect=Defect(kind, f"is {kind}"))
        for quant, kind in zip(("Q2_K", "Q6_K", "Q5_K_M", "Q5_K_S", "IQ4_XS"), kinds, strict=True)
    )

    resolution = decide(FoundModel(LLAMA_3_8B, (*broken, candidate("Q4_K_M"))), card(24))

    assert resolution.chosen.candidate.quant == "Q4_K_M"
    assert sorted(one.reason for one in resolution.rejected) == sorted(kinds)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("incomplete", errors.FileDamaged),
        ("mislabelled", errors.FileDamaged),
        ("unsafe", errors.UnsafeFile),
        ("access_denied", errors.Failure),
        ("architecture_unsupported", errors.EngineMissing),
    ],
)
def test_a_named_quant_that_cannot_be_taken_is_told_by_its_defect(kind, error):
    """Others that are whole were not asked for: the exit code is that of the defect."""
    broken = replace(candidate("Q8_0"), defect=Defect(kind, "so it is"))

    resolution = decide(FoundModel(LLAMA_3_8B, (broken, candidate("Q4_K_M"))), card(24), quant="Q8_0")

    assert type(resolution.error) is error
    assert "so it is" in str(resolution.error)


def test_options_that_leave_nothing_are_a_usage_error():
    """Each is there, together they exclude everything."""
    other = EngineState("other", frozenset({"mlx"}), installed=True)

    error = decide(model(LLAMA_3_8B), card(24), [LLAMACPP, other], engine="other").error

    assert isinstance(error, errors.UsageError)
    assert "only llamacpp loads it" in str(error)


def test_no_candidates_at_all_is_no_model():
    """Exit 3."""
    assert decide(FoundModel(LLAMA_3_8B, ()), card(24)).error.exit_code == 3


def test_types_that_llama_cpp_does_not_load_are_never_chosen():
    """ik_llama.cpp's own types: the file is passed over, whatever its label."""
    weights = replace(candidate("Q4_K_M").weights, type_bytes=(("IQ4_K", 4 * GIB),))
    foreign = replace(candidate("Q6_K"), quant="IQ4_K", weights=weights)

    resolution = decide(FoundModel(LLAMA_3_8B, (foreign, candidate("Q4_K_M"))), card(24), goal="quality")

    assert reasons(resolution) == {"IQ4_K": "architecture_unsupported"}


def test_a_candidate_of_unknown_dimensions_is_passed_over():
    """What a file needs must be known before it is chosen."""
    unknown = replace(candidate("Q8_0"), shape=None, weights=None)

    resolution = decide(FoundModel(LLAMA_3_8B, (unknown, candidate("Q4_K_M"))), card(24))

    assert reasons(resolution) == {"Q8_0": "architecture_unsupported"}


def test_an_architecture_the_engine_does_not_load_is_exit_7():
    """The engine's own list decides."""
    old = replace(LLAMACPP, architectures=frozenset({"gpt2"}))

    resolution = decide(model(LLAMA_3_8B, quants={"Q4_K_M"}), card(24), [old])

    assert {one.reason for one in resolution.rejected} == {"architecture_unsupported"}
    assert resolution.error.exit_code == 7


def test_without_an_engine_the_error_says_how_to_install_it():
    """Exit 7, with the command."""
    missing = replace(LLAMACPP, installed=False, can_install=False, why_not="not installed")

    resolution = decide(model(LLAMA_3_8B), card(24), [missing])

    assert isinstance(resolution.error, errors.EngineMissing)
    assert "qrun engines install llamacpp" in str(resolution.error)
    assert set(reasons(resolution).values()) == {"engine_unavailable"}


def test_a_format_no_runner_loads_is_passed_over():
    """The GGUF is taken; the other waits for its engine."""
    other = Candidate("o/exl2", None, "o", LLAMA_3_8B, (ModelFile("w.safetensors", GIB),), "exl2", "4.0bpw")

    resolution = decide(FoundModel(LLAMA_3_8B, (other, candidate("Q4_K_M"))), card(24))

    assert reasons(resolution) == {"4.0bpw": "engine_unavailable"}


def test_an_engine_without_gpu_support_is_refused_on_a_gpu_machine():
    """A GPU machine never runs on a CPU engine without saying so; --allow-cpu-engine does."""
    cpu_build = replace(LLAMACPP, backends=frozenset({"cpu"}))

    refused = decide(model(LLAMA_3_8B), card(24), [cpu_build])
    allowed = decide(model(LLAMA_3_8B), card(24), [cpu_build], allow_cpu_engine=True)

    assert isinstance(refused.error, errors.EngineMissing)
    assert "--allow-cpu-engine" in str(refused.error)
    assert allowed.chosen.placement.mode == "cpu"
    assert decide(model(LLAMA_3_8B), cpu_only(32), [cpu_build]).chosen


@pytest.mark.parametrize(
    ("here", "elsewhere", "winner"),
    [
        ("Q4_K_M", "4bit", "llamacpp"),  # worse
        ("Q5_K_M", "6bit", "llamacpp"),  # better, by less than 15 % of the score
        ("IQ2_XXS", "6bit", "other"),
    ],
)
def test_an_engine_not_installed_must_lead_by_more_than_15_percent(here, elsewhere, winner):
    """A little better is no reason to install; much better is."""
    other = EngineState("other", frozenset({"mlx"}), installed=False)
    rival = replace(candidate("Q5_K_M"), format="mlx", quant=elsewhere, repo_id="x/mlx")
    found = FoundModel(LLAMA_3_8B, (candidate(here), rival))

    chosen = decide(found, card(24), [LLAMACPP, other]).chosen

    assert (chosen.engine, chosen.engine_installed) == (winner, winner == "llamacpp")
    assert decide(found, card(24), [LLAMACPP, replace(other, installed=True)]).chosen.engine == (
        "llamacpp" if elsewhere == "4bit" else "other"
    )


def test_engines_can_be_restricted():
    """What only other engines load is filtered."""
    other = EngineState("other", frozenset({"mlx"}), installed=True)
    rival = replace(candidate("Q5_K_M"), format="mlx")
    found = FoundModel(LLAMA_3_8B, (candidate("Q4_K_M"), rival))

    resolution = decide(found, card(24), [LLAMACPP, other], engines=("llamacpp",))

    assert reasons(resolution) == {"Q5_K_M": "filtered"}
    assert decide(found, card(24), [LLAMACPP, other], engine="other").chosen.engine == "other"


def test_finetune_names_the_base_in_nf4_and_how_to_load_it():
    """No engine of ours: the line of code, and every quant passed over."""
    resolution = decide(model(LLAMA_3_8B), card(24), goal="finetune")

    assert resolution.error is None
    assert resolution.handover.candidate.quant == "nf4"
    assert f'from_pretrained("{LLAMA_3_8B}", quantization_config=BitsAndBytesConfig(' in resolution.handover.load
    assert len(resolution.rejected) == len(model(LLAMA_3_8B).candidates)
    with pytest.raises(errors.UsageError, match="cannot be served"):
        resolution.require()


def test_finetune_prefers_published_nf4_weights():
    """They load as they are."""
    published = Candidate("unsloth/m-bnb-4bit", None, "unsloth", LLAMA_3_8B, (ModelFile("w", GIB),), "bnb", "nf4")

    resolution = decide(FoundModel(LLAMA_3_8B, (published, candidate("Q4_K_M"))), card(24), goal="finetune")

    assert resolution.handover.load == 'AutoModelForCausalLM.from_pretrained("unsloth/m-bnb-4bit", device_map="auto")'


def test_finetune_of_a_base_without_an_organisation_is_refused():
    """A bare name cannot be loaded from anywhere."""
    resolution = decide(FoundModel("m", (candidate("Q4_K_M"),)), card(24), goal="finetune")

    assert resolution.error.exit_code == 3


def test_alternatives_are_the_next_best_with_all_their_settings():
    """At most five, the chosen not among them."""
    resolution = decide(model(LLAMA_3_8B), card(24))

    assert len(resolution.alternatives) == 5
    assert resolution.chosen.candidate not in [one.candidate for one in resolution.alternatives]
    assert resolution.alternatives[0].quality.kld < 0.05


def test_the_choice_explains_itself():
    """The rule with its figures, the placement with its budget, the KV type where it was changed."""
    why = decide(model(LLAMA_3_8B), card(8), goal="quality", n_parallel=1).chosen.why

    rule, kld, speed, *rest = why
    assert rule == (
        "goal quality: the smallest file within .002 KLD of the best that fits (34 candidates to choose from)"
    )
    assert kld == "KLD 0.0075 (A: Q6_K of Llama-3-8B; KV cache q8_0)"
    assert re.fullmatch(r"about \d+ tokens/s, \d+ to \d+ \(extrapolated\)", speed)
    assert rest == [
        "whole on the GPU: needs 6.4 GiB of 6.5 GiB",
        "KV cache in q8_0, because with f16 it does not fit",
    ]


SETS = st.lists(st.sampled_from(rows()), min_size=1, max_size=12, unique_by=lambda row: tuple(row.values())).map(
    lambda chosen: FoundModel("org/m", tuple(candidate_of(row) for row in chosen))
)
MACHINES = st.one_of(
    st.builds(cpu_only, st.floats(2.5, 80)),
    st.builds(card, st.floats(2, 80), count=st.integers(1, 3), ram_gib=st.floats(2.5, 80)),
    st.builds(lambda gib: card(gib, kind="metal", ram_gib=gib), st.floats(8, 128)),
)
OPTIONS = st.fixed_dictionaries(
    {"goal": st.sampled_from(CHOOSING_GOALS), "placement": st.sampled_from(["auto", "gpu", "any"])},
    optional={
        "n_ctx": st.one_of(st.integers(256, 8192), st.just("auto")),
        "n_parallel": st.integers(1, 4),
        "kv_type": st.sampled_from(["f16", "q8_0", "q4_0", "auto"]),
        "max_kld": st.floats(0.001, 1),
    },
)


@settings(deadline=None)
@given(found=SETS, hardware=MACHINES, options=OPTIONS)
def test_the_chosen_fits_and_every_other_has_one_reason(found, hardware, options):
    """Whatever is asked on whatever machine: budgets hold, and no candidate is lost or named twice."""
    resolution = decide(found, hardware, **options)
    chosen = resolution.chosen
    losers = [one.candidate for one in resolution.rejected]

    assert (chosen is None) == (resolution.error is not None)
    assert len(losers) == len(found.candidates) - (chosen is not None)
    assert all(one in found.candidates for one in losers)
    assert {one.reason for one in resolution.rejected} <= set(REASONS)
    for choice in (*([chosen] if chosen else []), *resolution.alternatives):
        shared = choice.placement.mode in ("cpu", "unified")
        in_ram = choice.memory.host_bytes + (choice.memory.total_bytes if shared else 0)
        assert in_ram <= hardware.ram_budget_bytes
        assert all(one.total_bytes <= one.budget_bytes for one in choice.memory.devices)
        assert choice.n_ctx <= choice.candidate.shape.n_ctx_train


@settings(deadline=None)
@given(found=SETS, hardware=MACHINES, options=OPTIONS, seed=st.integers())
def test_the_order_of_candidates_does_not_matter(found, hardware, options, seed):
    """Shuffled, the same decision to the last field."""
    shuffled = list(found.candidates)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - no secret

    one, other = (decide(model, hardware, **options) for model in (found, replace(found, candidates=tuple(shuffled))))

    assert to_json(one) == to_json(other)


@settings(deadline=None)
@given(
    quants=st.sets(st.sampled_from([row["quant"] for row in rows() if row["publisher"] == "QuantFactory"]), min_size=1),
    sizes=st.tuples(st.floats(2, 30), st.floats(2, 30)),
    on_gpu=st.booleans(),
)
def test_more_memory_never_gives_a_worse_quant(quants, sizes, on_gpu):
    """One publisher, one placement mode, goal quality: the loss never rises with the memory."""
    found = model(LLAMA_3_8B, publisher="QuantFactory", quants=quants)
    machines = [card(gib) if on_gpu else cpu_only(gib) for gib in sorted(sizes)]
    less, more = (
        decide(found, hardware, goal="quality", placement="gpu" if on_gpu else "auto").chosen for hardware in machines
    )

    assert less is None or more.quality.kld <= less.quality.kld


def test_a_model_without_known_dimensions_is_told_so_before_a_format_without_a_runner():
    """The nearest thing to a choice is named: a GGUF that cannot be weighed, not an MLX copy that nothing loads."""
    unknown = replace(candidate("Q4_K_M"), shape=None, weights=None)
    copy = Candidate("o/mlx", None, "o", LLAMA_3_8B, (ModelFile("w.safetensors", GIB),), "mlx", "4bit")

    error = decide(FoundModel(LLAMA_3_8B, (copy, unknown)), card(24)).error

    assert str(error) == (
        "llamacpp: its dimensions are not known, so its memory is not. Name another quant repo of the model."
    )


def test_a_choice_that_leaves_next_to_nothing_says_so():
    """A hundredth of the budget is soon taken by another program."""
    found = model(LLAMA_3_8B, publisher="bartowski", quants={"Q8_0"})
    roomy, tight = ("".join(decide(found, card(gib), kv_type="f16", n_parallel=1).chosen.why) for gib in (24, 10.05))

    assert "whole on the GPU: needs 8.5 GiB of 8.5 GiB" in tight
    assert "MiB of that is to spare" in tight
    assert "to spare" not in roomy


def test_every_loser_says_what_would_let_it_in():
    """Another goal, its own name, more memory, a lower floor: what is named is tried here."""
    found = model(LLAMA_3_8B, publisher="bartowski")
    resolution = decide(found, card(8), max_kld=0.3)

    for loser in resolution.rejected:
        assert loser.quality is not None, loser
        assert loser.needed_bytes is not None, loser
        if loser.reason == "too_large":
            continue
        kind, _, value = loser.would_fit.partition(" ")
        label = loser.candidate.quant
        match kind:
            case "--goal":
                again = decide(found, card(8), max_kld=0.3, goal=value)
            case "--max-kld":
                again = decide(found, card(8), max_kld=float(value), quant=label)
            case _:
                assert kind == f"{loser.candidate.repo_id}:{label}"
                again = decide(found, card(8), max_kld=0.3, quant=label)
        assert again.chosen.candidate == loser.candidate, loser


def test_a_card_too_old_for_an_engine_is_told_what_would_do():
    """Compute capability, and the kind of GPU an engine is built for at all."""
    exl = EngineState(
        "exllamav3", frozenset({"exl3"}), installed=True, runs_on=frozenset({"cuda"}), min_compute_capability=8.0
    )
    copy = replace(candidate("Q4_K_M"), format="exl3", quant="4.0bpw")
    found = FoundModel(LLAMA_3_8B, (copy, candidate("Q4_K_M")))
    volta, amd = card(16, compute_capability="7.0"), card(16, kind="rocm")

    for hardware, detail, would in (
        (volta, "exllamav3 needs compute capability 8.0, this GPU has 7.0", "a GPU of compute capability 8.0 or more"),
        (amd, "exllamav3 runs on CUDA alone", "a GPU with CUDA"),
    ):
        [loser] = decide(found, hardware, [LLAMACPP, exl]).rejected
        assert (loser.reason, loser.detail, loser.would_fit) == ("hardware_unsupported", detail, would)


def test_an_engine_that_divides_nothing_is_given_no_numbers_of_layers():
    """ExLlama's kind holds a model whole on GPUs or not at all."""
    exl = EngineState("exllamav3", frozenset({"exl3"}), installed=True, modes=frozenset({"gpu"}))
    found = FoundModel(LLAMA_3_8B, (replace(candidate("Q4_K_M"), format="exl3", quant="4.0bpw"),))

    fits = decide(found, card(5, count=2), [exl]).chosen.placement
    refused = decide(found, card(5), [exl])

    assert (fits.mode, fits.n_gpu_layers, fits.n_cpu_moe) == ("gpu", None, None)
    assert sum(fits.tensor_split) == pytest.approx(1)
    assert isinstance(refused.error, errors.NothingFits)


def test_floors_are_looked_for_in_slower_memory_too():
    """What fits the card misses --max-kld; a better quant with layers on the CPU passes it."""
    found = model(LLAMA_3_8B, publisher="bartowski")

    chosen = decide(found, card(6), max_kld=0.002).chosen

    assert (chosen.candidate.quant, chosen.placement.mode) == ("Q8_0", "split")
