"""Published speed measurements (a TSV: its header names the columns) as the values that the product's own model takes.

A row names a model, its parameters, a quant and mostly a size. Layers, widths and vocabulary come from
speed_models.tsv; what a row leaves open (its file's size) comes from its label: bits per weight by the tables below and
qrun's own of tensor types.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from qrun.devices import DeviceSpec, all_devices, find_device
from qrun.hardware import Cpu, Device, Hardware
from qrun.label_types import BPW, LabelTypes, label_types
from qrun.model import Format, LayerShape, ModelShape, Weights
from qrun.placement import Placement
from qrun.quant import parse_quant

__all__ = ["Row", "read_rows"]

MODELS = Path(__file__).with_name("speed_models.tsv")
# Whose engine it is that the row's program runs. Others are engines of their own, which qrun does not run.
ENGINES = {
    "llama.cpp": "llamacpp", "ollama": "llamacpp",
    "mlx-lm": "mlx", "Rapid-MLX (mlx)": "mlx", "vllm-mlx": "mlx",
    "exllamav2": "exllamav2", "exllamav3": "exllamav3", "vllm (exl3 plugin)": "exllamav3", "vllm": "vllm",
}  # fmt: skip
GGUF_READERS = ("llama.cpp", "ollama", "ik_llama.cpp")
PARALLEL = {"vllm", "sglang", "mlc-llm", "AutoAWQ", "exllama (v1)"}
KINDS = {"sycl": "vulkan"}  # Intel's cards are seen by Vulkan here
# Whole files' bits per weight by label: of an 8B model (as data/quality.toml has them), and publishers' own mixes.
LABEL_BPW = {
    "Q2_K": 3.16, "Q2_K_S": 2.98, "Q2_K_L": 3.3, "Q3_K_S": 3.64, "Q3_K_M": 3.99, "Q3_K_L": 4.30, "Q4_K_S": 4.67,
    "Q4_K_M": 4.89, "Q5_K_S": 5.57, "Q5_K_M": 5.70, "Q6_K": 6.56, "Q8_0": 8.5, "Q4_0": 4.65, "Q4_1": 5.1,
    "Q5_0": 5.6, "Q5_1": 6.0, "IQ4_XS": 4.42, "IQ4_NL": 4.65, "IQ3_M": 3.76, "IQ3_S": 3.66, "IQ3_XS": 3.5,
    "IQ3_XXS": 3.25, "IQ2_M": 2.93, "IQ2_S": 2.74, "IQ2_XS": 2.59, "IQ2_XXS": 2.39, "IQ1_M": 2.15, "IQ1_S": 2.01,
    "MXFP4": 4.4, "UD-Q4_K_XL": 4.95, "UD-Q3_K_XL": 3.7, "UD-Q3_K_S": 3.3, "UD-Q6_K_XL": 7.3, "UD-Q8_K_XL": 9.7,
    "UD-Q2_K_XL": 2.95, "Q3_K_XL": 4.1, "Q2_K_XL": 2.95, "Q4_K_XL": 4.95, "Q3_K_P": 3.9, "Q2_K_P": 3.0,
    "Q4_K": 4.89, "Q2_K_R4": 2.98, "IQ4_K": 4.6, "IQ4_K_R4": 4.6, "IQ2_KL": 2.8,
}  # fmt: skip
PLENTY = 2**40  # bytes of memory: whatever was measured did fit
UNKNOWN_EXPERTS = 10_000  # of a mixture whose counts are not known: any number that shares can be drawn in
TIED_BELOW = 4e9  # parameters of a model whose head is not known: small ones mostly share it with the embeddings


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement, and what the model is asked for it."""

    line: int
    device: str
    backend: str
    program: str
    engine: str | None  # None: none of qrun's
    model: str
    quant: str
    format: Format
    shape: ModelShape
    weights: Weights
    placement: Placement
    hardware: Hardware
    n_before: int
    decode_tps: float
    prefill_tps: float | None
    parallel: bool

    @property
    def group(self) -> tuple[str, str]:
        """Engine (or the other program) and backend: what is fitted together."""
        return self.engine or self.program, self.backend


def read_rows(path: Path) -> list[Row]:
    """The rows of `path` that tell enough; those without parameters are left out."""
    with path.open(encoding="utf-8", newline="") as opened:
        lines = [line for line in opened if not line.startswith("#")]
    table = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    return [row for number, fields in enumerate(table) if (row := _row(number, fields)) is not None]


def _row(number: int, fields: Mapping[str, str]) -> Row | None:
    if not fields["params_b"] or not fields["active_params_b"]:
        return None
    params, active = float(fields["params_b"]) * 1e9, float(fields["active_params_b"]) * 1e9
    label, format_ = _label(fields["quant"], fields["engine"])
    bpw, size_bytes = _size(fields["file_gib_or_bpw"], fields["quant"], label, params)
    shape = _shape(fields["model"], params, active)
    tied = bool(_dims(fields["model"], params, active)[3])
    weights = _weights(shape, params, active, tied=tied, size_bytes=size_bytes, bpw=bpw, label=label, format_=format_)
    backend, count = fields["backend"], int(fields["n_devices"])
    spec = _named(fields["device"]) or find_device(fields["device"], kind="cpu" if backend == "cpu" else "gpu")
    if spec is None:
        return None
    prefill = fields["prefill_tps"]
    tokens = fields["prompt_tokens"]
    return Row(
        line=number,
        device=fields["device"],
        backend=backend,
        program=fields["engine"],
        engine=ENGINES.get(fields["engine"]),
        model=fields["model"],
        quant=fields["quant"],
        format=format_,
        shape=shape,
        weights=weights,
        placement=_placement(backend, count, shape),
        hardware=_hardware(spec, backend, count),
        n_before=_depth(fields["n_ctx_or_depth"]),
        decode_tps=float(fields["decode_tps"]),
        prefill_tps=float(prefill) if prefill and tokens and int(tokens) >= 256 else None,
        parallel=count > 1 and fields["engine"] in PARALLEL and "layer split" not in fields["note"],
    )


def _named(name: str) -> DeviceSpec | None:
    """A device that stands in the table under the row's own words (`EPYC 7003 (Milan)`)."""
    return next((one for one in all_devices() if one.name == name), CPUS_OF_OTHERS.get(name))


# What no driver calls by such a name. The M2 Max's processor cores alone read about 220 GB/s.
CPUS_OF_OTHERS = {
    "M2 Max (CPU)": DeviceSpec("M2 Max (CPU)", "cpu", (), 220e9, None, None, shared_memory=True, source="devices.tsv"),
}


_PATTERNS: tuple[tuple[str, str, Format], ...] = (
    (r"EXL2[- ]([0-9.]+)bpw", "{}bpw", "exl2"),
    (r"EXL3[- ]([0-9.]+)bpw", "{}bpw", "exl3"),
    (r"AWQ.*|INT4.*", "4bit-g128", "awq"),
    (r"GPTQ-Int8", "8bit-g128", "gptq"),
    (r"GPTQ.*", "4bit-g128", "gptq"),
    (r"(?:MLX-)?([2-8]bit).*", "{}", "mlx"),
    (r"MXFP4-.*", "mxfp4", "mlx"),
    (r"FP8", "fp8", "fp8"),
    (r"NVFP4", "nvfp4", "fp8"),
)


def _label(quant: str, program: str) -> tuple[str, Format]:
    """The row's quant as qrun writes it, and its format."""
    text = quant.split(" (", maxsplit=1)[0].strip()
    for pattern, label, format_ in _PATTERNS:
        if match := re.fullmatch(pattern, text, re.IGNORECASE):
            return label.format(*match.groups()), format_
    if text in ("F16", "BF16"):
        return text, "gguf" if program in GGUF_READERS else "safetensors"
    return (parse_quant(text) or text), "gguf"


def _size(text: str, quant: str, label: str, params: float) -> tuple[float, float]:
    """Bits per weight and bytes: as printed, else by the label."""
    if match := re.match(r"~?([0-9.]+) (GiB|MiB|GB)$", text):
        size = float(match[1]) * {"GiB": 2**30, "MiB": 2**20, "GB": 1e9}[match[2]]
        return 8 * size / params, size
    if match := re.match(r"~?([0-9.]+)(?:-[0-9.]+)? bpw", text):
        return float(match[1]), params * float(match[1]) / 8
    bpw = _bpw(quant.split(" (", maxsplit=1)[0], label)
    return bpw, params * bpw / 8


def _bpw(quant: str, label: str) -> float:
    if quant in LABEL_BPW:
        return LABEL_BPW[quant]
    if match := re.match(r"([0-9.]+)bpw", label):
        return float(match[1])
    if match := re.match(r"([2-8])bit(-g128)?", label):
        return float(match[1]) + (0.25 if match[2] else 0.5)  # a scale and a bias of 16 bits for 128 or 64 weights
    if label in LABEL_BPW:
        return LABEL_BPW[label]
    return {"fp8": 8.0, "nvfp4": 4.5, "mxfp4": 4.4, "F16": 16.0, "BF16": 16.0}.get(label, BPW.get(label, 4.5))


def _models() -> Iterator[tuple[re.Pattern[str], list[int]]]:
    lines = [line for line in MODELS.read_text(encoding="utf-8").splitlines() if not line.startswith(("#", "pattern"))]
    for line in lines:
        pattern, *numbers = line.split("\t")
        yield re.compile(pattern, re.IGNORECASE), [int(number) for number in numbers]


def _shape(model: str, params: float, active: float) -> ModelShape:
    """The dimensions by name, else those usual for a model of so many parameters."""
    n_layer, n_embd, n_vocab, _, kv_dim, n_expert, n_used = _dims(model, params, active)
    if active < params and not n_expert:
        n_expert, n_used = UNKNOWN_EXPERTS, _usual_share(params, active)
    return ModelShape(
        architecture="", n_layer=n_layer, n_embd=n_embd, n_head=n_embd // 128 or 1, n_ff=4 * n_embd, n_vocab=n_vocab,
        n_ctx_train=None, layers=(LayerShape(1, kv_dim, kv_dim),) * n_layer,
        n_expert=n_expert if active < params else 0, n_expert_used=n_used if active < params else 0,
    )  # fmt: skip


def _dims(model: str, params: float, active: float) -> list[int]:
    known = next((dims for pattern, dims in _models() if pattern.match(model)), None)
    if known is not None:
        return known
    n_layer = round(max(16, min(96, 16.8 * (params / 1e9) ** 0.33)))
    return [n_layer, (64 if active < params else 128) * n_layer, 150_000, int(params < TIED_BELOW), 1024, 0, 0]


def _usual_share(params: float, active: float) -> int:
    """How many of the experts of an unknown mixture are used, if a third of what a token takes is no expert."""
    always = active / 3
    return max(1, round(UNKNOWN_EXPERTS * (active - always) / (params - always)))


def _weights(
    shape: ModelShape,
    params: float,
    active: float,
    *,
    tied: bool,
    size_bytes: float,
    bpw: float,
    label: str,
    format_: Format,
) -> Weights:
    """Bytes by part. A mixture's experts are as many weights as leave `active` when those in use are counted."""
    table = shape.n_vocab * shape.n_embd
    # Quantizers for GPUs keep embeddings and head in 16 bits; a size by nominal bits per weight leaves them out.
    table_bpw = 16.0 if format_ in ("awq", "gptq", "exl2", "exl3", "fp8") else min(16.0, max(bpw, 4.5))
    table_bytes = int(table * table_bpw / 8)
    body = max(size_bytes * 0.2, size_bytes - table_bytes * (1 if tied else 2))
    idle_weights = params - active
    experts = 0.0
    if shape.n_expert:
        idle_share = 1 - shape.n_expert_used / shape.n_expert
        experts = min(body * 0.97, idle_weights / idle_share / params * size_bytes)
    layer, expert = int(body / shape.n_layer), int(experts / shape.n_layer)
    main = label_types(format_, label)
    return Weights(
        total_bytes=int(size_bytes), n_params=int(params), token_embd_bytes=table_bytes,
        output_bytes=0 if tied else table_bytes, layer_bytes=(layer,) * shape.n_layer,
        expert_bytes=(expert,) * shape.n_layer if shape.n_expert else (), type_bytes=_types(main, bpw, size_bytes),
    )  # fmt: skip


def _types(main: LabelTypes, bpw: float, size_bytes: float) -> tuple[tuple[str, int], ...]:
    """The mix of the label's two types that has the row's bits per weight."""
    narrow, wide = (main.experts or main.layers), main.wider
    if narrow not in BPW or wide not in BPW or BPW[wide] <= BPW[narrow] or main.experts:
        return ((narrow, int(size_bytes)),)
    part = min(1.0, max(0.0, (bpw - BPW[narrow]) / (BPW[wide] - BPW[narrow])))
    wide_bytes = size_bytes * part * BPW[wide] / bpw
    return ((narrow, int(size_bytes - wide_bytes)), (wide, int(wide_bytes)))


def _placement(backend: str, count: int, shape: ModelShape) -> Placement:
    if backend == "cpu":
        return Placement("cpu", 0, 0)
    return Placement("gpu", shape.n_layer + 1, 0, tensor_split=(1 / count,) * count if count > 1 else None)


def _hardware(spec: DeviceSpec, backend: str, count: int) -> Hardware:
    bandwidth = spec.bandwidth_bytes_per_s
    cpu = Cpu(None, "x86_64")
    if backend == "cpu":
        return Hardware(spec.name, "linux", cpu, ram_bytes=PLENTY, ram_bandwidth_bytes_per_s=bandwidth)
    kind = KINDS.get(backend, backend)
    gpus = (Device(spec.name, kind, PLENTY, bandwidth_bytes_per_s=bandwidth),) * count
    return Hardware(spec.name, "linux", cpu, ram_bytes=PLENTY, gpus=gpus)


def _depth(text: str) -> int:
    """The mean depth: `~512`, `<600` (300), `4096+~2048` (5120), nothing: a short prompt."""
    if not text:
        return 256
    if text.startswith("<"):
        return int(text[1:]) // 2
    if match := re.fullmatch(r"([0-9]+)\+~([0-9]+)", text):
        return int(match[1]) + int(match[2])
    return int(text.lstrip("~"))
