"""Environments and pip steps, for real over packages in a folder: pinned, logged, ended with qrun."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from engine_launches import wait_until
from engine_packages import make_wheel
from qrun import engine_env
from qrun.engine_env import Workshop, make_environment, pip_command, requirement
from qrun.errors import Failure, FileDamaged


@pytest.fixture
def workshop(tmp_path) -> Workshop:
    """A workshop whose pip knows one folder of packages and no index."""
    (tmp_path / "packages").mkdir()
    environ = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "packages")}
    return Workshop(tmp_path / "scratch", tmp_path / "state" / "install.log", environ)


def install(workshop: Workshop, python: Path, line: str) -> None:
    """Install one pinned line."""
    wanted = python.parent.parent / "requirements.txt"
    wanted.write_text(line)
    workshop.run([*pip_command(python), "install", "--no-deps", "--require-hashes", "-r", str(wanted)])


def has(python: Path, module: str) -> bool:
    """Whether the environment can import it."""
    return subprocess.run([python, "-I", "-c", f"import {module}"], check=False, capture_output=True).returncode == 0


def test_a_pinned_package_is_installed_into_an_environment_of_its_own(workshop, tmp_path):
    """The package is there, and not in qrun's own environment; the step leaves nothing behind but its log."""
    sha256 = make_wheel(tmp_path / "packages")
    python = make_environment(tmp_path / "env", workshop)

    install(workshop, python, requirement("ready_engine", "1.0", [sha256]))

    assert has(python, "ready_engine")
    assert importlib.util.find_spec("ready_engine") is None
    assert not workshop.scratch.exists()
    assert "Successfully installed" in workshop.log_path.read_text()


@pytest.mark.slow
def test_without_a_pip_beside_qrun_the_environment_gets_its_own(workshop, tmp_path, monkeypatch):
    """A qrun installed by a tool that leaves pip out still installs engines."""
    monkeypatch.setattr(engine_env, "_own_pip", lambda: False)
    sha256 = make_wheel(tmp_path / "packages")
    python = make_environment(tmp_path / "env", workshop)

    install(workshop, python, requirement("ready_engine", "1.0", [sha256]))

    assert has(python, "pip")
    assert has(python, "ready_engine")


def test_a_python_without_pip_and_ensurepip_is_a_clear_line(workshop, tmp_path, monkeypatch):
    """Debian's bare Python has neither: the line says what to install."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(engine_env, "_own_pip", lambda: False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else find_spec(name))
    bare = Workshop(workshop.scratch, workshop.log_path, {"PATH": str(tmp_path)})

    with pytest.raises(Failure, match=r"neither pip nor ensurepip.*python3-venv"):
        make_environment(tmp_path / "env", bare)


def test_a_package_with_another_sha256_is_refused_as_damaged(workshop, tmp_path):
    """An index that serves other bytes than those pinned ends the installation, with exit code 8."""
    make_wheel(tmp_path / "packages")
    python = make_environment(tmp_path / "env", workshop)

    with pytest.raises(FileDamaged, match="sha256 is not the one qrun pins"):
        install(workshop, python, requirement("ready_engine", "1.0", ["0" * 64]))

    assert not has(python, "ready_engine")


def test_a_package_that_is_not_there_is_told_by_pips_own_line(workshop, tmp_path):
    """The index does not have it, or is not reached: pip's line is in the error, and where the log is."""
    python = make_environment(tmp_path / "env", workshop)

    with pytest.raises(Failure, match=r"ready_engine==1\.0.*install\.log"):
        install(workshop, python, requirement("ready_engine", "1.0", ["0" * 64]))


def test_the_users_pip_settings_cannot_move_the_package(workshop, tmp_path):
    """PIP_TARGET and the like are for the user's own installs; an index or certificate of theirs holds."""
    sha256 = make_wheel(tmp_path / "packages")
    theirs = {"PIP_TARGET": str(tmp_path / "theirs"), "PIP_USER": "1", "PYTHONPATH": str(tmp_path)}
    moved = Workshop(workshop.scratch, workshop.log_path, {**workshop.environ, **theirs})
    python = make_environment(tmp_path / "env", moved)

    install(moved, python, requirement("ready_engine", "1.0", [sha256]))

    assert has(python, "ready_engine")
    assert not (tmp_path / "theirs").exists()


def test_lines_are_passed_on_as_they_come(workshop):
    """What a step prints is heard while it runs, all of it, standard error too."""
    heard = []
    code = "import sys; print('one'); print('two', file=sys.stderr); print('three')"
    workshop.run([sys.executable, "-c", code], on_line=heard.append)

    assert heard == ["one", "two", "three"]


def test_a_program_that_is_not_there_is_a_failure_with_its_name(workshop):
    """A step that cannot be started is told like one that fails."""
    with pytest.raises(Failure, match="no-such-program"):
        workshop.run(["no-such-program"])


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (
            "a.cpp:3:1: error: expected ';'\nninja: build stopped\nERROR: Failed building wheel",
            "a.cpp:3:1: error: expected ';'",
        ),
        (
            'CMake Error at x.txt:178 (link):\n  Target "a" links to:\n\n    CUDA::cublas\n\n  not found.\n',
            'CMake Error at x.txt:178 (link): Target "a" links to: CUDA::cublas not found',
        ),
        ("WARNING: Retrying\nERROR: No matching distribution found for x", "No matching distribution found for x"),
        (
            "copying\nOSError: [Errno 28] No space left on device\nERROR: x",
            "OSError: [Errno 28] No space left on device",
        ),
        (
            "g++: fatal error: Killed signal terminated program cc1plus\n",
            "g++: fatal error: Killed signal terminated program cc1plus",
        ),
        ("something\nlast words\n\n", "last words"),
    ],
)
def test_the_telling_line_is_the_cause_and_not_pips_last(workshop, log, line):
    """A compiler's or CMake's error stands before pip's own, which only says that there was one."""
    script = f"import sys; print({log!r}); sys.exit(1)"
    with pytest.raises(Failure) as failed:
        workshop.run([sys.executable, "-c", script])

    assert f"could not be installed: {line.rstrip('.')}." in str(failed.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_step_and_what_it_started_end_with_qrun(tmp_path, number):
    """No compiler goes on after qrun is interrupted, terminated or killed, and its scratch folder is gone."""
    pids = tmp_path / "pids.json"
    step = textwrap.dedent(f"""
        import json, os, pathlib, subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        path = pathlib.Path({str(pids)!r})
        path.with_suffix(".new").write_text(json.dumps([os.getpid(), child.pid]))
        path.with_suffix(".new").rename(path)
        time.sleep(600)
    """)
    code = textwrap.dedent(f"""
        import os, sys
        from pathlib import Path
        from qrun.engine_env import Workshop
        Workshop(Path({str(tmp_path / "scratch")!r}), Path({str(tmp_path / "log")!r}), dict(os.environ)).run(
            [sys.executable, "-c", {step!r}])
    """)
    ours = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    wait_until(pids.exists)
    started = json.loads(pids.read_text())

    ours.send_signal(number)
    ours.wait(timeout=30)

    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in started))
    wait_until(lambda: not (tmp_path / "scratch").exists())
