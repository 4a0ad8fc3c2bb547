"""What engines load by the data of their pinned versions, for hardware that is not here."""

from dataclasses import replace

import pytest

from qrun.config_keys import architectures_of
from qrun.engine_models import known_architectures, known_tensor_types, simulated_states
from qrun.hardware import Cpu, Device, Hardware
from qrun.units import GIB

MACHINE = Hardware("simulated", "linux", Cpu("a CPU", "x86_64"), 64 * GIB)
RUNNERS = ("exllamav2", "exllamav3", "llamacpp", "mlx", "transformers", "vllm")


def states(capability="8.9", kind="cuda"):
    """The engines' states on a machine with one card, by runner."""
    card = Device("card", kind, 24 * GIB, compute_capability=capability if kind == "cuda" else None)
    return {state.runner: state for state in simulated_states(replace(MACHINE, gpus=(card,)))}


@pytest.mark.parametrize("runner", RUNNERS)
def test_every_runner_of_the_design_has_a_list_with_the_common_families(runner):
    """Each loads Llama, Qwen 2 and Gemma 2."""
    assert known_architectures(runner) >= {"llama", "qwen2", "gemma2"}


@pytest.mark.parametrize(
    ("runner", "architecture", "loads"),
    [
        ("llamacpp", "gpt-oss", True),
        ("llamacpp", "qwen3next", True),
        ("mlx", "gpt-oss", True),
        ("mlx", "minimax-m2", True),
        ("mlx", "arcee", False),
        ("exllamav2", "qwen3", True),
        ("exllamav2", "gpt-oss", False),
        ("exllamav2", "qwen3next", False),
        ("exllamav2", "qwen2moe", False),
        ("exllamav3", "gpt-oss", True),
        ("exllamav3", "ernie4_5", True),
        ("exllamav3", "granite", False),
        ("exllamav3", "llama4", False),
        ("vllm", "smollm3", True),
        ("vllm", "qwen35moe", True),
        ("transformers", "olmo2", True),
    ],
)
def test_families_that_tell_engines_apart_are_as_in_their_sources(runner, architecture, loads):
    """Checked by hand in the packages that data/engine_models.toml names."""
    assert (architecture in known_architectures(runner)) is loads


def test_a_runner_without_data_is_not_known():
    """Unknown is None: nothing is refused for it."""
    assert known_architectures("somebody-elses") is None
    assert known_tensor_types("mlx") is None


def test_model_types_are_put_in_llama_cpps_names():
    """Also where one model type makes several architectures; unknown ones are nothing."""
    assert architectures_of(["mistral", "granitemoehybrid", "no_such"]) == {
        "llama",
        "granitehybrid",
        "granite",
        "granitemoe",
    }


def test_types_of_other_forks_and_removed_ones_are_not_loaded():
    """ik_llama.cpp's own, and those that llama.cpp has removed."""
    types = known_tensor_types("llamacpp")

    assert {"Q4_K", "IQ4_XS", "MXFP4", "TQ1_0"} <= types
    assert not types & {"IQ4_K", "IQ5_K", "IQ2_KS", "Q4_0_4_4", "I2_S", "Q4_2"}


def test_every_engine_is_there_on_simulated_hardware():
    """What does not run there is for the resolver to refuse, with its reason."""
    assert sorted(states()) == sorted(RUNNERS)
    assert states()["mlx"].runs_on == {"metal"}
    assert states()["exllamav3"].runs_on == {"cuda"}


@pytest.mark.parametrize(
    ("capability", "fp8", "least"),
    [("8.9", True, 6.0), ("8.6", False, 6.0), ("7.5", False, 6.0)],
)
def test_a_format_that_the_cards_are_too_old_for_is_left_out(capability, fp8, least):
    """FP8 would be unpacked by transformers to twice its memory below 8.9; its other formats stay."""
    state = states(capability)["transformers"]

    assert ("fp8" in state.formats) is fp8
    assert {"bnb", "awq", "safetensors"} <= state.formats
    assert state.min_compute_capability == least


def test_an_engine_whose_every_format_needs_a_newer_card_says_so():
    """The formats stay, so that the refusal names the card and not the format."""
    state = states("7.5")["exllamav3"]

    assert (state.formats, state.min_compute_capability) == ({"exl3"}, 8.0)


def test_a_card_of_unknown_capability_and_one_of_another_kind_lack_nothing():
    """Unknown is no fault; compute capability is CUDA's."""
    assert "fp8" in states(None)["transformers"].formats
    assert "fp8" in states(kind="rocm")["vllm"].formats
