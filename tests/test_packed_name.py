"""Which base model a repo's name speaks of."""

import pytest

from qrun.packed_name import base_names, likeliest_id


@pytest.mark.parametrize(
    ("repo_id", "base"),
    [
        ("bartowski/Qwen_Qwen3-8B-GGUF", "Qwen/Qwen3-8B"),
        ("bartowski/Llama-3.2-1B-Instruct-GGUF", "Llama-3.2-1B-Instruct"),
        ("mradermacher/Qwen3-8B-i1-GGUF", "Qwen3-8B"),
        ("mlx-community/Devstral-Small-2507-MLX-4bit", "Devstral-Small-2507"),
        ("mlx-community/Qwen3-4B-4bit-DWQ-053125", "Qwen3-4B"),
        ("mlx-community/nvidia_Llama-3.1-Nemotron-70B-Instruct-HF_4bit", "nvidia/Llama-3.1-Nemotron-70B-Instruct"),
        ("unsloth/Qwen3-4B-unsloth-bnb-4bit", "Qwen3-4B"),
        ("Qwen/Qwen3-14B-AWQ", "Qwen3-14B"),
        ("Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8", "Qwen2.5-14B-Instruct"),
        ("turboderp/Qwen3-8B-exl3", "Qwen3-8B"),
        ("LoneStriker/Meta-Llama-3-70B-4.65bpw-h6-exl2", "Meta-Llama-3-70B"),
        ("RedHatAI/phi-4-FP8-dynamic", "phi-4"),
        ("noctrex/GLM-4.7-Flash-MXFP4_MOE-GGUF", "GLM-4.7-Flash"),
        ("x/Tifa-7b-Q8_0-GGUF", "Tifa-7b"),
        ("x/Qwen3.6-27B-MTP-Q8_0-GGUF", "Qwen3.6-27B"),
        ("x/Qwen3.5-9B-MP-GGUF", "Qwen3.5-9B"),
        ("x/M-7B-unsloth-MagicQuant-Hybrid-GGUF", "M-7B"),
        ("x/M-7B-APEX-I-Quality-GGUF", "M-7B"),
        ("x/M-7B-UD-japanese-imatrix", "M-7B"),
        ("x/M-7B-Japanese-gguf", "M-7B-Japanese"),
        ("bartowski/openai_gpt-oss-20b-GGUF-MXFP4-Experimental", "openai/gpt-oss-20b"),
        ("x/M-7B-GGUF-IQ-Imatrix", "M-7B"),
        ("x/Qwen3-4B-toolcalling-gguf-codex", "Qwen3-4B-toolcalling-gguf-codex"),
        ("x/Qwen3.5-9B-Neo-GGUF", "Qwen3.5-9B-Neo"),
        ("lmstudio-community/gemma-3n-E4B-it-text-GGUF", "gemma-3n-E4B-it"),
        ("x/gemma-3n-E4B-it-text-GGUF", "gemma-3n-E4B-it-text"),
        ("bartowski/Qwen2.5-14B_Uncensored_Instruct-GGUF", "Qwen2.5-14B_Uncensored_Instruct"),
        ("Epiculous/Violet_Twilight-v0.2-GGUF", "Violet_Twilight-v0.2"),
        ("meta-llama/Llama-3.1-8B-Instruct", "Llama-3.1-8B-Instruct"),
    ],
)
def test_a_repo_name_gives_its_base(repo_id, base):
    """What says how the model is packed comes off; a publisher's prefix becomes the organisation."""
    assert base_names(repo_id)[0] == base


def test_an_unknown_organisation_before_the_name_is_a_second_reading():
    """One publisher writes ORG_NAME throughout; an underscore alone is no proof of it."""
    assert base_names("bartowski/POLARIS-Project_Polaris-4B-Preview-GGUF") == (
        "POLARIS-Project_Polaris-4B-Preview",
        "POLARIS-Project/Polaris-4B-Preview",
    )


def test_the_known_organisation_is_the_likeliest():
    """An official id beats a copy's, and any id a bare name."""
    assert likeliest_id(["copy/M-7B", "copy/M-7B", "mistralai/M-7B", "M-7B"]) == "mistralai/M-7B"
    assert likeliest_id(["M-7B", "M-7B", "copy/M-7B"]) == "copy/M-7B"


def test_what_counts_parameters_is_no_organisation():
    """`Qwen2.5-14B_Uncensored_Instruct` has one reading, whoever publishes it."""
    assert len(base_names("bartowski/Qwen2.5-14B_Uncensored_Instruct-GGUF")) == 1
