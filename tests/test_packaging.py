"""The distribution as people install it: from a checkout, editable, and as the wheel that is built from the sdist."""

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from conftest import TEST_HOME
from install_homes import dependencies, install_uv, python

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # pip resolves and installs: minutes on a busy machine

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"qrun": ROOT / "src" / "qrun", "qrun_llamacpp": ROOT / "runners" / "qrun_llamacpp"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist of the checkout, and the wheel that is built from that sdist (not from the checkout)."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


@pytest.mark.parametrize("editable", [False, True], ids=["installed", "editable"])
def test_an_installed_qrun_lists_its_runners(tmp_path, editable):
    """`pip install .` and `pip install -e .` each give a `qrun` that finds the llama.cpp runner by its entry point."""
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = _script(environment, "python")
    _run(python, "-m", "pip", "install", "--quiet", *(["-e"] if editable else []), ROOT)

    listed = json.loads(_run(_script(environment, "qrun"), "engines", "--json", cwd=tmp_path))
    imported_from = Path(_run(python, "-c", "import qrun; print(qrun.__file__)", cwd=tmp_path).strip())

    assert "llamacpp" in {engine["runner"] for engine in listed["engines"]}
    assert imported_from.is_relative_to(ROOT / "src" if editable else environment)


@pytest.mark.parametrize("what", ["checkout", "wheel from the sdist"])
def test_a_qrun_installed_by_uv_lists_its_runners(tmp_path, built, what):
    """`uv tool install .`, and of the wheel that the sdist gives, each make a `qrun` that finds its runner."""
    (TEST_HOME / "cache").mkdir(parents=True, exist_ok=True)
    wheels = dependencies(TEST_HOME / "cache")
    uv = install_uv(wheels, tmp_path / "uv")
    folders = {
        "UV_TOOL_DIR": str(tmp_path / "tools"),
        "UV_TOOL_BIN_DIR": str(tmp_path / "bin"),
        "UV_CACHE_DIR": str(TEST_HOME / "cache" / "uv"),
    }
    offline = {"UV_NO_CONFIG": "1", "UV_OFFLINE": "1", "UV_PYTHON_DOWNLOADS": "never", "UV_FIND_LINKS": str(wheels)}
    source = ROOT if what == "checkout" else built[1]
    uv_install = [uv, "tool", "install", "--quiet", "--reinstall-package", "qrun-llm", "--python", python(), source]
    _run(*uv_install, cwd=tmp_path, **folders, **offline)

    listed = json.loads(_run(tmp_path / "bin" / "qrun", "engines", "--json", cwd=tmp_path))

    assert "llamacpp" in {engine["runner"] for engine in listed["engines"]}


def test_the_wheel_from_the_sdist_holds_every_file_of_the_packages(built):
    """Data files, py.typed and the runner's own scripts travel with the code; nothing else does."""
    _, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert inside == {
        str(Path(package) / path.relative_to(folder))
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_carries_licence_command_and_runner_entry_point(built):
    """An installed qrun has its licence text, its command, and the runner's entry point."""
    _, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entries,) = [archive.read(name).decode() for name in names if name.endswith("/entry_points.txt")]
        (metadata,) = [archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA")]

    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert "[console_scripts]\nqrun = qrun.cli:main" in entries
    assert "[qrun.runners]\nllamacpp = qrun_llamacpp:" in entries
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata


def test_the_sdist_holds_what_a_packager_needs(built):
    """Whoever packages qrun from the sdist can run its tests and read its documents."""
    sdist, _ = built
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}

    assert {"pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "tests/conftest.py", "scripts/test"} <= inside
    assert not any(name.endswith((".pyc", ".so", ".whl")) for name in inside)


def test_the_tests_run_qrun_with_its_entry_point_in_place():
    """The qrun under test is an installed one: its runner is found as any user's would be."""
    found = {entry.name for entry in entry_points(group="qrun.runners")}

    assert "llamacpp" in found


def _script(environment, name):
    folder = environment / ("Scripts" if os.name == "nt" else "bin")
    return folder / name


def _run(*argv, cwd=None, **settings):
    # Isolated from the packages and settings of whoever runs the tests.
    environ = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        argv, check=False, capture_output=True, text=True, cwd=cwd, env=environ | {"PYTHONNOUSERSITE": "1"} | settings
    )
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, argv))} exited {done.returncode}:\n{done.stdout}\n{done.stderr}"[-4000:])
    return done.stdout
