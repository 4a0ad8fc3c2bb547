"""llama-server's command line, by cases: what a plan says, and what the user's own arguments replace."""

from dataclasses import replace
from pathlib import Path

import pytest

from qrun.errors import UsageError
from qrun.placement import Placement
from qrun.runner import Engine, ServePlan, TcpAddress, UnixAddress
from qrun.units import MIB
from qrun_llamacpp.native import flags_in, server_argv

SOCKET = UnixAddress(Path("/run/q/1.sock"))
ENGINE = Engine("llamacpp", "native", "1", Path("/opt/llama-server"), "test")
CPU = ServePlan(
    model_path=Path("/models/a b.gguf"),
    alias="name",
    n_ctx=2048,
    n_parallel=4,
    kv_cache_type="f16",
    placement=Placement("cpu", n_gpu_layers=0, n_cpu_moe=0),
    threads=6,
    cache_ram_bytes=512 * MIB,
    private_dir=Path("/run/q"),
)


def argv(address=SOCKET, **changes):
    """The command for the plan with `changes`."""
    return list(server_argv(ENGINE, replace(CPU, **changes), address))


def value(command, flag):
    """What follows a flag that must stand there once; None where it does not."""
    assert command.count(flag) < 2
    return command[command.index(flag) + 1] if flag in command else None


def test_the_whole_command_of_a_plain_plan():
    """Everything the engine is told, in one look."""
    assert argv() == [
        *("/opt/llama-server", "-m", "/models/a b.gguf", "--host", "/run/q/1.sock"),
        *("-c", "8192", "-np", "4", "-t", "6", "-ctk", "f16", "-ctv", "f16", "-fa", "auto", "--fit", "off"),
        *("--cache-ram", "512", "--alias", "name", "--metrics", "--slots", "--jinja", "--no-webui", "-lv", "4"),
        *("-ngl", "0", "--device", "none", "-b", "512"),
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kv_cache_type": "q8_0"}, {"-ctk": "q8_0", "-ctv": "q8_0", "-fa": "on"}),
        ({"kv_cache_type": "q4_0"}, {"-ctk": "q4_0", "-ctv": "q4_0", "-fa": "on"}),
        ({"n_parallel": 1}, {"-c": "2048", "-np": "1"}),
        ({"cache_ram_bytes": 0}, {"--cache-ram": "0"}),
        ({"placement": Placement("gpu", 33, 0)}, {"-ngl": "33", "--device": None, "-b": None, "--n-cpu-moe": None}),
        ({"placement": Placement("split", 20, 0)}, {"-ngl": "20", "--device": None}),
        ({"placement": Placement("experts-on-cpu", 49, 12)}, {"-ngl": "49", "--n-cpu-moe": "12"}),
        ({"placement": Placement("gpu", 33, 0, (0.25, 0.75))}, {"--tensor-split": "0.25,0.75"}),
        ({"placement": Placement("unified", None, None)}, {"-ngl": None, "--tensor-split": None}),
        ({"mmproj_path": Path("/m/mmproj.gguf")}, {"--mmproj": "/m/mmproj.gguf"}),
    ],
)
def test_the_plan_decides_the_flags(changes, expected):
    """Each setting of a plan is told to the engine, in the engine's words."""
    command = argv(**changes)

    assert {flag: value(command, flag) for flag in expected} == expected


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (("-c", "4096"), "-c"),
        (("--ctx-size", "4096"), "-c"),
        (("--parallel", "2"), "-np"),
        (("--threads", "3"), "-t"),
        (("--cache-type-k", "q8_0"), "-ctk"),
        (("--flash-attn", "off"), "-fa"),
        (("--n-gpu-layers", "3"), "-ngl"),
        (("-fit", "on"), "--fit"),
        (("-cram", "-1"), "--cache-ram"),
        (("-a", "x"), "--alias"),
        (("--no-slots",), "--slots"),
        (("--no-jinja",), "--jinja"),
        (("--ui",), "--no-webui"),
        (("--device", "CUDA0"), "--device"),
    ],
)
def test_the_users_argument_replaces_ours(theirs, ours):
    """An argument after `--` stands last and alone: ours of the same meaning is dropped, in any spelling."""
    command = argv(extra_args=theirs)

    assert command[-len(theirs) :] == list(theirs)
    assert ours not in command[: -len(theirs)]


def test_other_arguments_of_the_users_replace_nothing():
    """What is not ours is added."""
    assert argv(extra_args=("--temp", "0.2", "--seed", "-1")) == [*argv(), "--temp", "0.2", "--seed", "-1"]


@pytest.mark.parametrize(
    "theirs",
    [("--host", "0.0.0.0"), ("--port", "1"), ("--api-key", "x"), ("-m", "b.gguf"), ("--hf-repo=a/b",), ("-hf", "a")],
)
def test_what_is_qruns_to_decide_is_refused_by_name(theirs):
    """An engine that listens elsewhere or serves another model would be out of qrun's hands."""
    with pytest.raises(UsageError, match=f"^{theirs[0].partition('=')[0]} cannot stand after --"):
        argv(extra_args=theirs)


def test_a_port_is_told_with_its_host_and_no_key():
    """The key travels by environment: a command line is for everybody to read."""
    command = argv(TcpAddress("127.0.0.1", 4321))

    assert value(command, "--host") == "127.0.0.1"
    assert value(command, "--port") == "4321"
    assert "--api-key" not in command


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ((), ()),
        (("-c", "1", "--temp", "-0.5"), ("-c", "--temp")),
        (("-c=1", "-c", "2"), ("-c",)),
        (("--seed", "-1", "word"), ("--seed",)),
    ],
)
def test_flags_are_told_from_values(words, flags):
    """A negative number is a value, not a flag."""
    assert flags_in(words) == flags
