"""Record what llama-server says of large models in its dry run: tests/data/llama_server_memory.tsv.

    python scripts/bench/memory_record.py LLAMA_SERVER > tests/data/llama_server_memory.tsv

Headers of the models' dimensions without weights, and ggml-rpc-server processes in place of GPUs. A run that the server
does not survive is named on stderr and left out.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from dry_run import dry_run, native_command, stand_in_gpus
from sparse_gguf import MODELS, Dims, write_sparse

HEAD = "model n_ctx n_parallel kv mode n_gpu_layers n_cpu_moe split place total weights kv_cache compute"
ON_CPU = ((512, 1, "f16"), (8192, 1, "f16"), (8192, 4, "f16"), (32768, 1, "f16"))
ON_CPU_QUANTIZED = ((8192, 1, "q8_0"), (32768, 4, "q8_0"), (4096, 1, "q4_0"))


@dataclass(frozen=True)
class Run:
    """One dry run, in the words of qrun's placements."""

    n_ctx: int
    n_parallel: int
    kv: str
    mode: str = "cpu"
    n_gpu_layers: int | None = None
    n_cpu_moe: int | None = None
    split: tuple[int, ...] = ()

    @property
    def n_devices(self) -> int:
        """Devices it takes."""
        return 0 if self.mode == "cpu" else max(1, len(self.split))

    def options(self, devices: str) -> list[str]:
        """How llama-server is told of the placement."""
        options = ["--rpc", devices] if self.n_devices else []
        if self.split:
            options += ["-ts", ",".join(map(str, self.split))]
        if self.n_gpu_layers is not None:
            options += ["-ngl", str(self.n_gpu_layers)]
        if self.n_cpu_moe is not None:
            options += ["-ngl", "999", "-ncmoe", str(self.n_cpu_moe)]
        return options

    def cells(self) -> list[str]:
        """The columns that name it."""
        numbers = ["-" if number is None else str(number) for number in (self.n_gpu_layers, self.n_cpu_moe)]
        split = ":".join(map(str, self.split)) or "-"
        return [str(self.n_ctx), str(self.n_parallel), self.kv, self.mode, *numbers, split]


def main() -> None:
    """Print the table."""
    server = Path(sys.argv[1])
    print("# llama-server's dry run of models of the dimensions in tests/sparse_gguf.py, in MiB rounded down, as")
    print("# scripts/bench/memory_record.py recorded it (llama-cpp-python 0.3.36, Linux x86_64, flash attention).")
    print(HEAD.replace(" ", "\t"))
    with tempfile.TemporaryDirectory() as folder:
        for name, dims in MODELS.items():
            model = write_sparse(Path(folder) / f"{name}.gguf", dims)
            for run in runs(dims):
                record(server, name, model, run)


def runs(dims: Dims) -> Iterator[Run]:
    """Contexts, slots and KV types on the CPU; placements on one to three devices."""
    for settings in ON_CPU + ON_CPU_QUANTIZED:
        yield Run(*settings)
    half, layers = dims.n_layer // 2, dims.n_layer
    yield Run(8192, 1, "f16", "gpu")
    yield Run(32768, 4, "q8_0", "gpu")
    for n_gpu_layers in (half, layers):
        yield Run(8192, 1, "f16", "split", n_gpu_layers)
    yield Run(8192, 1, "f16", "gpu", split=(1, 1))
    yield Run(8192, 4, "q8_0", "gpu", split=(3, 1))
    yield Run(8192, 1, "f16", "split", half, split=(3, 1))
    yield Run(32768, 1, "f16", "gpu", split=(1, 1, 1))
    if dims.moe:
        for n_cpu_moe in (10, layers):
            yield Run(8192, 1, "f16", "experts-on-cpu", None, n_cpu_moe)
        yield Run(8192, 1, "f16", "experts-on-cpu", None, 10, (1, 1))


def record(server: Path, name: str, model: Path, run: Run) -> None:
    """Print one line a place."""
    with stand_in_gpus(server, run.n_devices) if run.n_devices else nullcontext("") as devices:
        command = native_command(
            server, model, n_ctx=run.n_ctx, n_parallel=run.n_parallel, kv=run.kv, more=run.options(devices)
        )
        try:
            rows = dry_run(command)
        except RuntimeError:
            print("no answer:", name, *run.cells(), file=sys.stderr)
            return
    for i, row in enumerate(rows):
        place = "host" if row.place == "Host" else f"gpu{i}"
        print(name, *run.cells(), place, row.total, row.model, row.context, row.compute, sep="\t")


if __name__ == "__main__":
    main()
