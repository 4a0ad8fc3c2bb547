"""Candidates of real models as values, and machines and engines for them: what the resolver's tests choose among."""

from dataclasses import replace
from pathlib import Path

from qrun.hardware import Cpu, Device, Hardware
from qrun.model import Candidate, LayerShape, ModelFile, ModelShape, Weights
from qrun.resolution import EngineState
from qrun.source import FoundModel
from qrun.units import GIB

LLAMA_3_8B = "meta-llama/Meta-Llama-3-8B-Instruct"
QWEN_14B = "Qwen/Qwen2.5-14B-Instruct"
QWEN_30B_A3B = "Qwen/Qwen3-30B-A3B-Instruct-2507"

LLAMACPP = EngineState("llamacpp", frozenset({"gguf"}), installed=True)

# Dimensions from the models' config.json, and their parameters.
_SHAPES = {
    LLAMA_3_8B: (ModelShape("llama", 32, 4096, 32, 14336, 128256, 8192, (LayerShape(8, 128, 128),) * 32), 8030261248),
    QWEN_14B: (ModelShape("qwen2", 48, 5120, 40, 13824, 152064, 32768, (LayerShape(8, 128, 128),) * 48), 14770033664),
    QWEN_30B_A3B: (
        ModelShape("qwen3moe", 48, 2048, 32, 6144, 151936, 262144, (LayerShape(4, 128, 128),) * 48, 128, 8, 768),
        30532122624,
    ),
}


def rows():
    """The table of quants, one mapping a row."""
    text = (Path(__file__).parent / "data" / "candidates.tsv").read_text()
    lines = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def candidate_of(row):
    """One row of the table as a candidate."""
    shape, n_params = _SHAPES[row["model"]]
    embd, output, layer, expert = (
        int(row[name]) for name in ("token_embd_bytes", "output_bytes", "layer_bytes", "expert_bytes")
    )
    body = layer * shape.n_layer
    types = ((row["main_type"], body), ("Q6_K", output))
    weights = Weights(
        embd + output + body, n_params, embd, output, (layer,) * shape.n_layer, (expert,) * shape.n_layer, types
    )
    name = row["model"].rpartition("/")[2]
    return Candidate(
        repo_id=f"{row['publisher']}/{name}-GGUF",
        revision=None,
        publisher=row["publisher"],
        base_model=row["model"],
        files=(ModelFile(f"{name}-{row['quant']}.gguf", int(row["size_bytes"])),),
        format="gguf",
        quant=row["quant"],
        shape=shape,
        weights=weights,
        has_imatrix=row["imatrix"] == "yes",
        has_chat_template=True,
    )


def model(name, *, publisher=None, quants=None):
    """A model with its quants, of one publisher or with some labels only where named."""
    chosen = [row for row in rows() if row["model"] == name]
    chosen = [row for row in chosen if publisher is None or row["publisher"] == publisher]
    chosen = [row for row in chosen if quants is None or row["quant"] in quants]
    assert chosen, f"no such rows: {name} {publisher} {quants}"
    return FoundModel(name, tuple(candidate_of(row) for row in chosen))


def candidate(quant, name=LLAMA_3_8B, publisher="bartowski", **changes):
    """One candidate by its label, with `changes` to it."""
    return replace(model(name, publisher=publisher, quants={quant}).candidates[0], **changes)


def card(gib, *, count=1, ram_gib=64.0, kind="cuda", **changes):
    """A machine with `count` idle GPUs of `gib` each."""
    gpus = tuple(
        Device(f"GPU {index}", kind, int(gib * GIB), unified=kind == "metal", **changes) for index in range(count)
    )
    return replace(cpu_only(ram_gib), gpus=gpus)


def cpu_only(ram_gib):
    """A machine without a GPU."""
    return Hardware("test machine", "linux", Cpu("a CPU", "x86_64", 8, 8, 8), int(ram_gib * GIB))
