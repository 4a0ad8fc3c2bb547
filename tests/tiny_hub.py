"""A small Hub with one model, and a user of qrun who has nothing yet: where tests of decisions begin."""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from hub_emulator import HubEmulator
from tiny_gguf import write_tiny_gguf

BASE = "acme/Tiny-1B-Instruct"
REPO = "someone/Tiny-1B-Instruct-GGUF"
MODEL = "Tiny-1B-Instruct"


def two_quants(folder: Path, name: str = MODEL) -> dict[str, Path]:
    """Two quants of a model, by the names that its repo gives them."""
    return {
        f"{name}-{quant}.gguf": write_tiny_gguf(folder / f"{quant}.gguf", tensor_type=quant, file_type=kind)
        for quant, kind in (("Q8_0", 7), ("Q4_0", 2))
    }


def stock(hub: HubEmulator, quants: Mapping[str, Path]) -> None:
    """Put the base and the repo of its quants on the Hub."""
    hub.add_repo(BASE, {"README.md": b"# Tiny\n"}, downloads=1000)
    hub.add_repo(REPO, quants, base_model=BASE, relation="quantized", downloads=100)


def environ_of(hub: HubEmulator, home: Path) -> dict[str, str]:
    """The variables of a user who has nothing yet."""
    folders = {f"QRUN_{name}_DIR": str(home / name.lower()) for name in ("DATA", "CACHE", "STATE")}
    return folders | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home / "hf"),
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "QRUN_HUB_RETRY_S": "0.2",
    }


def command(exe: Path, environ: Mapping[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the installed command with those variables alone."""

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([exe, *args], check=False, env=environ, capture_output=True, text=True, timeout=60)

    return run
