"""One repo of the Hub as candidates: labels, what belongs together, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrun.hub_candidates import (
    RepoState,
    bpw_in_name,
    bpw_of_branch,
    candidates_of_state,
    config_path,
    label_of_branch,
    parsed_config,
)
from qrun.hub_info import HubFile, RepoInfo

COMMIT = "a" * 40


def candidates(repo_id, *paths, ref="main", config=None, told=None, **more):
    """The candidates of a repo of these files, 1,000 bytes each."""
    files = tuple(HubFile(path, 1000, "b" * 64) for path in paths)
    state = RepoState(RepoInfo(repo_id, COMMIT, files), ref, config, told, **more)
    return candidates_of_state(state, "acme/M-7B")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("8_0", "8.0bpw"),
        ("6_5", "6.5bpw"),
        ("4.25bpw", "4.25bpw"),
        ("4_25", "4.25bpw"),
        ("4_0bpw_h6", "4.0bpw"),
        ("3.5bpw_H6", "3.5bpw"),
        ("3.05bpw_h5_ng5", "3.05bpw"),
        ("3.00bpw_mul1", "3.0bpw"),
        ("4.0bpw-h8", "4.0bpw"),
        ("main", None),
        ("v1.0", None),
        ("2024-11-01", None),
        ("gptq-4bit-32g-actorder_True", None),
        ("0_5", None),
        ("24.0bpw", None),
    ],
)
def test_an_exl_branch_says_its_bits(name, label):
    """As publishers name them; other branches are no quants."""
    assert bpw_of_branch(name) == label


@given(st.text(max_size=40))
def test_no_branch_name_breaks_it(name):
    """A label is one that names its bits, or none."""
    label = bpw_of_branch(name)

    assert label is None or 1 <= float(label.removesuffix("bpw")) <= 16


def test_a_repo_of_one_width_says_it_in_its_name():
    """Such repos need no look at their branches."""
    assert bpw_in_name("LoneStriker/Meta-Llama-3-70B-4.65bpw-h6-exl2") == "4.65bpw"
    assert bpw_in_name("turboderp/Qwen3-8B-exl3") is None


@pytest.mark.parametrize(
    ("repo_id", "told", "found"),
    [
        ("x/M-7B-5.0bpw-h6-exl2", "exl2", ("exl2", "5.0bpw")),
        ("mlx-community/M-7B-4bit", "mlx", ("mlx", "4bit")),
        ("mlx-community/M-7B-4bit-DWQ", "mlx", ("mlx", "4bit-DWQ")),
        ("x/M-7B-AWQ", "awq", ("awq", "4bit")),
        ("x/M-7B-GPTQ-Int8", "gptq", ("gptq", "8bit")),
        ("x/M-7B-FP8-dynamic", "fp8", ("fp8", "fp8")),
        ("x/M-7B-unsloth-bnb-4bit", "bnb", ("bnb", "nf4")),
        ("x/M-7B-bnb-8bit", "bnb", ("bnb", "int8")),
    ],
)
def test_without_a_config_name_and_tags_tell(repo_id, told, found):
    """Where config.json cannot be read; plain weights without one could be anything."""
    (one,) = candidates(repo_id, "model.safetensors", told=told)

    assert (one.format, one.quant) == found
    assert candidates("x/M-7B", "model.safetensors", told="safetensors") == ()


def test_config_json_is_believed_over_name_and_tags():
    """What it does not know is no candidate, whatever its name says."""
    other = {"quantization_config": {"quant_method": "hqq"}}
    gptq = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32}}

    assert candidates("x/M-7B-AWQ-4bit", "model.safetensors", told="awq", config=other) == ()
    assert candidates("x/M-7B-AWQ-4bit", "model.safetensors", told="awq", config=gptq)[0].quant == "4bit-g32"


@pytest.mark.parametrize(
    ("repo_id", "quantization", "found"),
    [
        ("x/M-FP8-dynamic", {"config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}}},
         ("fp8", "fp8")),
        ("x/M-FP8", {"format": "float-quantized"}, ("fp8", "fp8")),
        ("x/M-quantized.w4a16", {"config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int",
         "group_size": 128}}}}, ("awq", "4bit-g128")),
        ("x/M-quantized.w8a8", {"config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "int",
         "group_size": None}}}}, ("awq", "8bit")),
        ("x/M-quantized.w4a16", {}, ("awq", "4bit")),
        ("x/M-NVFP4", {"config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "float"}}}}, None),
        ("x/M", {}, None),
        ("x/M", {"config_groups": {"group_0": None}}, None),
    ],
)  # fmt: skip  # a table
def test_compressed_tensors_are_what_their_scheme_says(repo_id, quantization, found):
    """One layout for FP8 and for integers; NVFP4 in it is not known to qrun yet."""
    config = {"quantization_config": {"quant_method": "compressed-tensors"} | quantization}

    assert [(one.format, one.quant) for one in candidates(repo_id, "model.safetensors", config=config)] == (
        [found] if found else []
    )


@pytest.mark.parametrize(
    ("quantization", "found"),
    [
        ({"quant_method": "fbgemm_fp8"}, ("fp8", "fp8")),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, ("fp8", "fp8")),
        ({"quant_method": "mxfp4"}, ("safetensors", "mxfp4")),
    ],
)
def test_other_makers_formats_are_known_by_their_config(quantization, found):
    """Meta's and NVIDIA's FP8, and gpt-oss' own weights."""
    (one,) = candidates("x/M", "model.safetensors", config={"quantization_config": quantization})

    assert (one.format, one.quant) == found


@pytest.mark.parametrize(
    ("branch", "label"),
    [("gptq-4bit-32g-actorder_True", "4bit-g32"), ("gptq-8bit--1g-actorder_True", "8bit"), ("4_25", "4.25bpw"),
     ("gptq-3bit-128g", "3bit-g128"), ("main", None), ("gptq", None)],
)  # fmt: skip  # a table
def test_a_branch_that_is_a_quant_says_its_label(branch, label):
    """EXL by bits, GPTQ by bits and group."""
    assert label_of_branch(branch) == label


def test_shards_stand_together_and_first_comes_first():
    """As on the disk: one candidate, the missing one named."""
    name = "Q4_K_M/M-7B-Q4_K_M"
    whole = candidates("x/M-7B-GGUF", *(f"{name}-0000{n}-of-00003.gguf" for n in (2, 1, 3)), "mtp-M-7B-Q8_0.gguf")
    (broken,) = candidates("x/M-7B-GGUF", f"{name}-00001-of-00002.gguf")

    assert [file.path[-19:-5] for file in whole[0].files] == ["00001-of-00003", "00002-of-00003", "00003-of-00003"]
    assert len(whole) == 1
    assert broken.defect.detail.startswith("shard 2 of 2 is missing")


@pytest.mark.parametrize(
    ("repo_id", "path", "ref"),
    [
        ("x/M-7B-GGUF", "../M-Q8_0.gguf", "main"),
        ("x/M-7B-GGUF", "a/../../M-Q8_0.gguf", "main"),
        ("x/M-7B-GGUF", "C:\\M-Q8_0.gguf", "main"),
        ("x/M--7B-GGUF", "M-Q8_0.gguf", "main"),
        ("x/M-7B-GGUF", "M-Q8_0.gguf", "../refs"),
        ("x/M-7B-GGUF", "con/M-Q8_0.gguf", "main"),
    ],
)
def test_a_name_that_the_store_would_refuse_is_a_defect(repo_id, path, ref):
    """Known before it is chosen, and no reason to end the decision."""
    (one,) = candidates(repo_id, path, ref=ref)

    assert one.defect.reason == "unsafe"


def test_what_is_closed_is_shown_as_such():
    """The names of a gated repo's files are open, their bytes are not."""
    (one,) = candidates("acme/M-7B", "model-00001-of-00001.safetensors", told="safetensors", denied=True)

    assert (one.format, one.defect.reason) == ("safetensors", "access_denied")


def test_a_config_is_looked_for_inside_the_repo_only():
    """The nearest to the top; none that leaves the repo."""
    assert config_path(["sub/config.json", "config.json"]) == "config.json"
    assert config_path(["../config.json", "sub/../config.json"]) is None


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe", b"[" * 100_000, None])
def test_a_config_that_is_none_is_as_if_it_were_not_there(content):
    """Somebody's file, never an error."""
    assert parsed_config(content) is None
