"""Record what llama-server says of large models in its dry run: the tables llama_server_*.tsv in tests/data.

    python scripts/bench/memory_record.py LLAMA_SERVER > tests/data/llama_server_memory.tsv
    python scripts/bench/memory_record.py LLAMA_SERVER --configs > tests/data/llama_server_configs.tsv

Headers of the models' dimensions without weights, and ggml-rpc-server processes in place of GPUs: 15 models by hand
(tests/sparse_gguf.py) in all their parts, or, shorter, those of tests/data/configs. A run that the server does not
survive twice is named on stderr and left out.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Self

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from config_gguf import CONFIGS, write_config
from dry_run import Row, dry_run, native_command, stand_in_gpus
from qrun.model import ModelShape
from qrun.shape_config import shape_of_config
from sparse_gguf import MODELS, Dims, write_sparse

CONFIGS_HEAD = "model n_ctx n_parallel kv mode n_gpu_layers n_cpu_moe split totals"
CONTEXTS = (4096, 32768, 131072)
MOST_DEVICES = 2
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
    os.environ["GGML_NO_BACKTRACE"] = "1"  # a run that fails would start a debugger
    if "--configs" in sys.argv[2:]:
        record_configs(server)
        return
    print("# llama-server's dry run of models of the dimensions in tests/sparse_gguf.py, in MiB rounded down, as")
    print("# scripts/bench/memory_record.py recorded it (llama-cpp-python 0.3.36, Linux x86_64, flash attention).")
    print(HEAD.replace(" ", "\t"))
    with tempfile.TemporaryDirectory() as folder:
        for name, dims in MODELS.items():
            model = write_sparse(Path(folder) / f"{name}.gguf", dims)
            for run in runs(dims):
                record(server, name, model, run)


def record_configs(server: Path) -> None:
    """Print one line a run: the totals of the devices in order, then of the host."""
    print("# llama-server's dry run of the models in tests/data/configs, as Q4_K by tests/config_gguf.py: MiB rounded")
    print("# down of each device in order, then of host RAM; recorded by scripts/bench/memory_record.py --configs")
    print("# (llama-cpp-python 0.3.36, Linux x86_64, flash attention left to the engine).")
    print(CONFIGS_HEAD.replace(" ", "\t"))
    with tempfile.TemporaryDirectory() as folder, _Devices(server) as devices:
        for name, config in CONFIGS.items():
            model = write_config(Path(folder) / f"{name}.gguf", config)
            for run in config_runs(shape_of_config(config)):
                rows = devices.ask(model, run)
                if rows is None:
                    print("no answer:", name, *run.cells(), file=sys.stderr)
                else:
                    print(name, *run.cells(), ",".join(str(row.total) for row in rows), sep="\t")
            model.unlink()


def config_runs(shape: ModelShape) -> Iterator[Run]:
    """Contexts as far as the model has them, KV types and slots on the CPU; placements on one device and on two."""
    for n_ctx in CONTEXTS:
        if shape.n_ctx_train is None or n_ctx <= shape.n_ctx_train:
            yield from (Run(n_ctx, n_parallel, kv) for kv in ("f16", "q8_0") for n_parallel in (1, 4))
    half, layers = shape.n_layer // 2, shape.n_layer
    for settings in ((8192, 1, "f16"), (32768, 4, "q8_0")):
        yield Run(*settings, "gpu")
        yield Run(*settings, "split", half)
        yield Run(*settings, "gpu", split=(1, 1))
        if shape.n_expert:
            yield Run(*settings, "experts-on-cpu", None, layers)
    yield Run(8192, 1, "f16", "split", layers)
    yield Run(8192, 1, "f16", "split", 2)  # the last layer and the head
    yield Run(8192, 1, "f16", "split", half, split=(3, 1))
    yield Run(8192, 1, "f16", "gpu", split=(3, 1))
    yield Run(8192, 1, "f16", "gpu", split=(2 * layers - 3, 5))  # the same as the second of two
    yield Run(8192, 1, "f16", "gpu", split=(2 * layers - 1, 3))  # the head alone
    if shape.n_expert:
        yield Run(8192, 1, "f16", "experts-on-cpu", None, 10)
        yield Run(8192, 1, "f16", "experts-on-cpu", None, layers, (1, 1))


class _Devices:
    """Stand-ins for GPUs that stay up from run to run: one that a killed server took along is made anew."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._addresses = self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask(self, model: Path, run: Run) -> list[Row] | None:
        """The breakdown; None where the server gives none, twice."""
        for _ in range(2):
            options = run.options(",".join(self._addresses[: run.n_devices]))
            command = native_command(
                self._server, model, n_ctx=run.n_ctx, n_parallel=run.n_parallel, kv=run.kv, more=options
            )
            try:
                return dry_run(command)
            except RuntimeError:
                self._stack.close()
                self._addresses = self._start()
        return None

    def _start(self) -> Sequence[str]:
        return self._stack.enter_context(stand_in_gpus(self._server, MOST_DEVICES)).split(",")


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
