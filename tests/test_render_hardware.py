"""`qrun hardware`: for people a fact a line, for programs a contract where unknown is null."""

import json

import pytest

from qrun.cli.main import run_cli
from qrun.hardware import Cpu, Device, Hardware
from qrun.render_hardware import hardware_json, show_hardware
from qrun.units import GIB

FULL = Hardware(
    name="A workstation",
    os="linux",
    cpu=Cpu("A CPU", "x86_64", 20, 12, 8, allowed_cores=6, quota_cores=2.5, isa=frozenset({"fma", "avx2"})),
    ram_bytes=64 * GIB,
    ram_free_bytes=40 * GIB,
    ram_limit_bytes=48 * GIB,
    ram_bandwidth_bytes_per_s=60e9,
    ram_bandwidth_source="measured",
    gpus=(
        Device(
            "NVIDIA GeForce RTX 4090",
            "cuda",
            24 * GIB,
            free_bytes=20 * GIB,
            bandwidth_bytes_per_s=1008e9,
            bandwidth_source="specification",
            compute_capability="8.9",
            uuid="GPU-1",
            pci_bus_id="00000000:01:00.0",
            driver="570.86.15",
        ),
        Device("AMD [gfx1151]", "rocm", 32 * GIB, unified=True),
    ),
    notes=("A driver was not answering.",),
)
BARE = Hardware(name="x", os="linux", cpu=Cpu(None, "x86_64"), ram_bytes=8 * GIB)

DOCUMENT = {
    "schema": 1,
    "name": "A workstation",
    "os": "linux",
    "simulated": False,
    "cpu": {
        "name": "A CPU",
        "arch": "x86_64",
        "logical_cores": 20,
        "physical_cores": 12,
        "performance_cores": 8,
        "allowed_cores": 6,
        "quota_cores": 2.5,
        "isa": ["avx2", "fma"],
        "engine_threads": 2,
    },
    "ram": {
        "total_bytes": 64 * GIB,
        "free_bytes": 40 * GIB,
        "limit_bytes": 48 * GIB,
        "budget_bytes": 38 * GIB,
        "bandwidth_bytes_per_s": 60e9,
        "bandwidth_source": "measured",
    },
    "gpus": [
        {
            "index": 0,
            "name": "NVIDIA GeForce RTX 4090",
            "kind": "cuda",
            "memory_bytes": 24 * GIB,
            "free_bytes": 20 * GIB,
            "budget_bytes": 18.5 * GIB,
            "bandwidth_bytes_per_s": 1008e9,
            "bandwidth_source": "specification",
            "compute_capability": "8.9",
            "unified": False,
            "working_set_bytes": None,
            "uuid": "GPU-1",
            "pci_bus_id": "00000000:01:00.0",
            "driver": "570.86.15",
        },
        {
            "index": 1,
            "name": "AMD [gfx1151]",
            "kind": "rocm",
            "memory_bytes": 32 * GIB,
            "free_bytes": None,
            "budget_bytes": 31 * GIB,
            "bandwidth_bytes_per_s": None,
            "bandwidth_source": None,
            "compute_capability": None,
            "unified": True,
            "working_set_bytes": None,
            "uuid": None,
            "pci_bus_id": None,
            "driver": None,
        },
    ],
    "devices": [
        {"name": "NVIDIA GeForce RTX 4090", "kind": "cuda", "memory_bytes": 24 * GIB, "budget_bytes": 18.5 * GIB},
        {"name": "AMD [gfx1151]", "kind": "rocm", "memory_bytes": 32 * GIB, "budget_bytes": 31 * GIB},
        {"name": "A CPU", "kind": "cpu", "memory_bytes": 64 * GIB, "budget_bytes": 38 * GIB},
    ],
    "notes": ["A driver was not answering."],
}


def test_the_document_is_the_contract():
    """Keys, units and order of `qrun hardware --json`, pinned whole."""
    document = hardware_json(FULL)

    assert document == DOCUMENT
    assert list(document) == list(DOCUMENT)


def test_unknown_is_null_and_every_key_stays():
    """A machine that tells nothing has the same keys, with null where nothing is known."""
    document = json.loads(json.dumps(hardware_json(BARE)))

    assert document["cpu"].keys() == DOCUMENT["cpu"].keys()
    assert document["cpu"]["isa"] is None
    assert document["cpu"]["physical_cores"] is None
    assert document["ram"]["free_bytes"] is None
    assert document["gpus"] == []


def test_people_read_a_fact_a_line(capsys):
    """In a pipe nothing wraps, nothing is coloured and no line ends in blanks."""
    show_hardware(FULL, as_json=False)

    out = capsys.readouterr().out
    assert out.splitlines()[:9] == [
        "Machine       A workstation (linux)",
        "CPU           A CPU (x86_64)",
        "Cores         12 physical, 8 of them performance, 20 logical",
        "Threads       an engine gets 2 (the cgroup allows 2.5 cores of CPU time, the affinity mask leaves 6 cores)",
        "Instructions  avx2 fma",
        "RAM           64.0 GiB, limited to 48.0 GiB by the cgroup, 40.0 GiB free",
        "RAM budget    38.0 GiB for a model",
        "Bandwidth     60 GB/s (measured)",
        "Note          A driver was not answering.",
    ]
    assert all(line == line.rstrip() for line in out.splitlines())
    assert "\x1b" not in out


def test_people_read_each_gpu_in_a_row(capsys):
    """Index, name, backend, memory, free, budget, bandwidth, driver; a name in brackets is not taken for markup."""
    show_hardware(FULL, as_json=False)

    rows = [line.split() for line in capsys.readouterr().out.splitlines()[-2:]]
    assert rows[0][:8] == ["0", "NVIDIA", "GeForce", "RTX", "4090", "cuda", "8.9", "24.0"]
    assert rows[1] == [
        "1",
        "AMD",
        "[gfx1151]",
        "rocm",
        "32.0",
        "GiB",
        "shared",
        "with",
        "RAM",
        "unknown",
        "31.0",
        "GiB",
        "unknown",
        "unknown",
    ]


def test_people_read_what_is_unknown(capsys):
    """Unknown is said, not left out and not made a zero."""
    show_hardware(BARE, as_json=False)

    out = capsys.readouterr().out
    assert "CPU           unknown (x86_64)" in out
    assert "Cores         unknown" in out
    assert "Instructions  unknown" in out
    assert "GPUs          none found" in out
    assert "unknown free" in out


@pytest.mark.parametrize("as_json", [False, True], ids=["people", "json"])
def test_the_command_shows_this_machine(capsys, as_json):
    """Real: `qrun hardware` and `--json` exit 0, and the document parses."""
    code = run_cli(["hardware", *(["--json"] if as_json else [])])

    captured = capsys.readouterr()
    assert code == 0
    assert captured.err == ""
    assert json.loads(captured.out)["ram"]["total_bytes"] > 0 if as_json else "RAM budget" in captured.out


def test_the_command_shows_a_hardware_file(capsys, tmp_path):
    """`--hardware FILE` shows what a decision for that machine would see."""
    path = tmp_path / "box.toml"
    path.write_text('name = "box"\nos = "linux"\narch = "x86_64"\ncpu_cores = 4\nram_bytes = 17179869184\n')

    code = run_cli(["hardware", "--json", "--hardware", str(path)])

    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (document["name"], document["simulated"]) == ("box", True)
    assert document["ram"]["budget_bytes"] == 14 * GIB


@pytest.mark.parametrize("content", [None, "name = 3\n"], ids=["absent", "wrong"])
def test_a_bad_hardware_file_is_a_line_and_exit_2(capsys, tmp_path, content):
    """One line names the file; the exit code is that of usage."""
    path = tmp_path / "box.toml"
    if content is not None:
        path.write_text(content)

    code = run_cli(["hardware", "--hardware", str(path)])

    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "box.toml" in captured.err
