"""`scripts/install.sh` for real: in empty homes, from a pipe, without compiler or uv, broken off, again, removed."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import psutil
import pytest
from platformdirs.macos import MacOS

import qrun
from conftest import TEST_HOME
from install_homes import (
    NEWER,
    ROOT,
    SCRIPT,
    Home,
    dependencies,
    install_uv,
    make_index,
    make_tools,
    newer_wheel,
    plant_gpu,
    python,
)
from qrun.config import read_config

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a script for Linux and macOS")

CACHES = TEST_HOME / "cache"


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """The package index of these tests: a folder with qrun's wheel and those of all it needs."""
    CACHES.mkdir(parents=True, exist_ok=True)
    return make_index(tmp_path_factory.mktemp("shop") / "index", dependencies(CACHES).iterdir())


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """PATH of a machine with a Python, and neither a compiler nor uv."""
    folder = make_tools(tmp_path_factory.mktemp("tools") / "bin")
    (folder / "python3").symlink_to(python())
    return folder


@pytest.fixture(scope="module")
def uv_tools(tmp_path_factory, index):
    """PATH of a machine with a compiler and uv."""
    folder = tmp_path_factory.mktemp("uv")
    compilers = [name for name in ("cc", "c++", "make") if shutil.which(name)]
    made = make_tools(folder / "bin", install_uv(index, folder / "packages"), *compilers)
    (made / "python3").symlink_to(python())
    return made


@pytest.fixture
def home(tmp_path, tools, index):
    """An empty home on the machine without uv."""
    return _home(tmp_path / "home", tools, index)


@pytest.fixture
def uv_home(tmp_path, uv_tools, index):
    """An empty home on the machine with uv."""
    return _home(tmp_path / "home", uv_tools, index)


@dataclass(frozen=True)
class Stage:
    """A home after a run of the script: what came of it, and what the home held then."""

    home: Home
    done: subprocess.CompletedProcess[str] | None
    version: str | None
    engine: dict[str, object] | None
    environments: list[str]


@pytest.fixture(scope="module")
def installed(tmp_path_factory, tools, index):
    """An empty home with a blank in its path, the script from a pipe, a umask that protects nothing."""
    home = _home(tmp_path_factory.mktemp("homes") / "a user's home", tools, index)
    done = home.pipe(umask=0)
    writable = [path for path in home.path.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022]
    assert done.returncode == 0, done.stderr
    assert writable == []
    return _stage(home, done)


@pytest.fixture(scope="module")
def newer(installed, tmp_path_factory):
    """The settings by which pip sees a newer version of qrun in the index."""
    folder = newer_wheel(installed.home.index, tmp_path_factory.mktemp("newer")).parent
    return {"PIP_FIND_LINKS": f"{installed.home.index} {folder}", "QRUN_SPEC": "qrun-llm"}


@pytest.fixture(scope="module")
def killed(installed, newer):
    """The same home after an upgrade that was killed, with all it had started, while pip worked."""
    home = installed.home
    ours = home.start("--no-engine", **newer)
    _until(lambda: len(list(home.tool.glob("venv-*/lib/python3*/site-packages/rich"))) == 2)
    _kill(ours)
    return _stage(home, None)


@pytest.fixture(scope="module")
def upgraded(killed, newer):
    """The same home after the upgrade was run again."""
    done = killed.home.pipe(**newer)
    assert done.returncode == 0, done.stderr
    return _stage(killed.home, done)


@pytest.fixture(scope="module")
def removed(upgraded):
    """The same home after --uninstall."""
    done = upgraded.home.pipe("--uninstall")
    assert done.returncode == 0, done.stderr
    return Stage(upgraded.home, done, None, None, [])


@pytest.mark.slow
@pytest.mark.engine
def test_one_line_gives_qrun_and_a_tested_engine_without_compiler_and_uv(installed):
    """From an empty home, out of a pipe: the command, the hardware, the engine, and at the end what to type."""
    said = installed.done.stdout

    assert installed.version == f"qrun {qrun.__version__}\n"
    assert installed.engine["flavour"] == "ready"
    assert "\nMachine " in said
    assert "passed its self-test" in said
    assert "Ready. Try: qrun serve " in said
    assert f'export PATH="{installed.home.path}/.local/bin:$PATH"' in said
    assert len(installed.done.stderr.splitlines()) <= 1


@pytest.mark.slow
@pytest.mark.engine
def test_killed_in_the_middle_of_an_upgrade_the_earlier_qrun_is_in_force(killed, installed):
    """SIGKILL at any moment: what was half-made is not taken for whole, and what worked goes on working."""
    assert (killed.version, killed.engine) == (installed.version, installed.engine)
    assert len(killed.environments) == 2


@pytest.mark.slow
@pytest.mark.engine
def test_the_next_run_upgrades_qrun_and_leaves_a_working_engine(upgraded, killed, installed):
    """The newer version is in force, what was half-made is cleared; the engine passes its test again and stays."""
    assert set(upgraded.environments) & set(killed.environments) == set(installed.environments)
    assert upgraded.version == f"qrun {NEWER}\n"
    assert upgraded.engine == installed.engine
    assert "is already installed and passes its self-test" in upgraded.done.stdout
    assert len(upgraded.environments) == 2  # a qrun may still run in the earlier one: the next run clears it


@pytest.mark.slow
@pytest.mark.engine
def test_uninstall_leaves_nothing_of_ours(removed):
    """Command, environments, engines, cache, logs: the home is as empty as it was."""
    assert "qrun is removed." in removed.done.stdout
    assert removed.home.left() == []


@pytest.mark.slow
@pytest.mark.engine
def test_a_checkout_is_installed_by_uv_where_there_is_one(uv_home):
    """`uv tool install` of the checkout the script lies in, twice; a compiler on PATH is no reason to build."""
    first = uv_home.run()
    engine = uv_home.engine()
    again = uv_home.run("--no-engine")
    link = uv_home.qrun.readlink()
    gone = uv_home.run("--uninstall")

    assert (first.returncode, again.returncode, gone.returncode) == (0, 0, 0)
    assert f"Installing {ROOT} by uv" in first.stdout
    assert link.is_relative_to(uv_home.path / ".local/share/uv/tools/qrun-llm")
    assert engine["flavour"] == "ready"
    assert _without_uvs_own(uv_home) == []


def test_what_uv_installed_is_removed_also_where_uv_is_gone(uv_home, tools):
    """Another shell may not have uv on PATH: uninstall leaves nothing all the same."""
    done = uv_home.run("--no-engine")
    gone = replace(uv_home, tools=tools).run("--uninstall")

    assert (done.returncode, gone.returncode) == (0, 0)
    assert gone.stdout == "qrun is removed.\n"
    assert _without_uvs_own(uv_home) == []


@pytest.mark.slow
@pytest.mark.engine
def test_a_gpu_machine_gets_no_cpu_engine_unless_that_is_allowed(uv_home, tmp_path):
    """A card and no way to build: the engine is refused with exit 7 and the remedy; the option accepts one."""
    without_compilers = make_tools(tmp_path / "bin", uv_home.tools / "uv", uv_home.tools / "python3")
    gpu = replace(uv_home, tools=without_compilers, index=plant_gpu(uv_home.index, tmp_path / "gpu"))
    refused = gpu.pipe()
    without = gpu.engine()
    allowed = gpu.pipe("--allow-cpu-engine")

    assert refused.returncode == 7
    assert "RTX 4060" in refused.stdout
    assert "an engine is not (see the error)" in refused.stdout
    (error,) = refused.stderr.splitlines()
    assert error.startswith("qrun: error: llamacpp: ")
    assert "there is a GPU (cuda)" in error
    assert "--allow-cpu-engine" in error
    assert without is None
    assert allowed.returncode == 0
    assert gpu.engine()["backends"] == ["cpu"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_says_so_by_its_exit_code_and_leaves_no_environment(home, number, code):
    """Ctrl-C or SIGTERM to the script alone: what it started ends too, and nothing half-made stays."""
    ours = home.start("--no-engine", QRUN_SPEC="qrun-llm")
    _until(lambda: list(home.tool.glob("venv-*/bin/pip")))
    ours.send_signal(number)
    said = ours.communicate(timeout=60)

    assert ours.returncode == code
    assert "Traceback" not in "".join(said)
    assert list(home.tool.iterdir()) == []
    assert not home.qrun.is_symlink()


@pytest.mark.slow
def test_killed_while_uv_works_the_next_run_installs(uv_home):
    """The same where uv does the work, whose half-made environment is not taken for a whole one."""
    ours = uv_home.start("--no-engine", QRUN_SPEC="qrun-llm")
    _until(lambda: list(uv_home.path.glob(".local/share/uv/tools/qrun-llm/pyvenv.cfg")))
    _kill(ours)
    done = uv_home.run("--no-engine", QRUN_SPEC="qrun-llm")

    assert done.returncode == 0
    assert uv_home.ask("--version") == f"qrun {qrun.__version__}\n"


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("/bin/bash", 'Add to ~/.bashrc: export PATH="{bin}:$PATH"'),
        ("/bin/zsh", 'Add to ~/.zshrc: export PATH="{bin}:$PATH"'),
        ("/usr/bin/fish", 'Type once: fish_add_path "{bin}"'),
        ("", 'Add to ~/.profile: export PATH="{bin}:$PATH"'),
    ],
)
def test_it_says_what_puts_the_command_on_path(uv_home, shell, line):
    """The line for the user's shell; no profile is edited."""
    done = uv_home.run("--no-engine", SHELL=shell)
    folder = uv_home.qrun.parent

    assert done.stdout.splitlines()[-1] == f"{folder} is not on PATH. {line.format(bin=folder)}"
    assert [path.name for path in uv_home.path.iterdir()] == [".local"]


def test_a_command_of_that_name_before_ours_on_path_is_told(uv_home, tmp_path):
    """On PATH nothing is said of it, unless another program of that name comes first."""
    theirs = tmp_path / "theirs" / "qrun"
    theirs.parent.mkdir()
    theirs.write_text("#!/bin/sh\n")
    theirs.chmod(0o755)
    path = f"{uv_home.qrun.parent}{os.pathsep}{uv_home.tools}"
    alone = uv_home.run("--no-engine", PATH=path)
    behind = uv_home.run("--no-engine", PATH=f"{theirs.parent}{os.pathsep}{path}")

    assert "PATH" not in alone.stdout
    assert behind.stdout.splitlines()[-1] == f"Another qrun comes first on PATH: {theirs}. This one is {uv_home.qrun}"


def test_what_cannot_be_installed_is_one_line_and_leaves_the_earlier_qrun(uv_home):
    """A version that is not published: uv's own reason, where the log is, exit 1; what worked goes on working."""
    first = uv_home.run("--no-engine", QRUN_SPEC="qrun-llm")
    refused = uv_home.run("--version", "0.0.1")

    assert first.returncode == 0
    assert refused.returncode == 1
    (error,) = refused.stderr.splitlines()
    assert error.startswith("install.sh: error: uv could not install qrun-llm==0.0.1: ")
    assert str(uv_home.path / ".local/state/qrun/install.log") in error
    assert uv_home.ask("--version") == f"qrun {qrun.__version__}\n"


def test_what_pip_cannot_install_leaves_no_environment(home):
    """The same without uv: one line with pip's reason, and nothing half-made."""
    refused = home.run("--version=0.0.1")

    assert refused.returncode == 1
    (error,) = refused.stderr.splitlines()
    assert error.startswith("install.sh: error: pip could not install qrun-llm==0.0.1: Could not find a version ")
    assert list(home.tool.iterdir()) == []
    assert not home.qrun.is_symlink()


@pytest.mark.parametrize("python3", [None, "exit 1"], ids=["none", "too old"])
def test_without_a_usable_python_and_without_uv_one_line_says_what_to_install(tmp_path, index, python3):
    """No Python that will do: the line names both ways out, exit 1, and nothing was installed."""
    folder = make_tools(tmp_path / "bin")
    if python3:
        (folder / "python3").write_text(f"#!/bin/sh\n{python3}\n")
        (folder / "python3").chmod(0o755)
    done = _home(tmp_path / "home", folder, index).run()

    assert done.returncode == 1
    (error,) = done.stderr.splitlines()
    assert error.startswith("install.sh: error: no Python 3.11 or newer ")
    assert "python3-venv" in error
    assert "uv" in error
    assert not (tmp_path / "home/.local/bin/qrun").exists()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_command_of_that_name_that_is_not_ours_is_left_alone(home, tmp_path, kind):
    """Another package has a `qrun` too: it is refused before anything is made, and uninstall does not take it."""
    home.qrun.parent.mkdir(parents=True)
    (tmp_path / "theirs").write_text("#!/bin/sh\n")
    if kind == "link":
        home.qrun.symlink_to(tmp_path / "theirs")
    else:
        home.qrun.write_text("#!/bin/sh\n")
    refused = home.run("--no-engine")
    gone = home.run("--uninstall")

    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert f"{home.qrun} is there already" in refused.stderr
    assert gone.returncode == 0
    assert home.left() == [".local/bin/qrun"]


def test_uninstall_where_nothing_is_says_so(home):
    """There was nothing: exit 0, and nothing was made either."""
    done = home.pipe("--uninstall")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "qrun is not installed here: nothing was removed.\n"
    assert list(home.path.iterdir()) == []


def test_uninstall_keeps_the_models_and_says_how_to_remove_them(home):
    """Other tools share the Hub's cache: its place and size are named, and the command named removes the models."""
    hub = home.path / "it's a cache"
    (hub / "models--org--name" / "blobs").mkdir(parents=True)
    (hub / "models--org--name" / "blobs" / "weights").write_bytes(bytes(3 * 2**20))
    (hub / "datasets--org--name").mkdir()
    done = home.run("--uninstall", HF_HUB_CACHE=str(hub))
    kept = (hub / "models--org--name" / "blobs" / "weights").exists()
    command = done.stdout.partition("To remove every one: ")[2]
    subprocess.run(["sh", "-c", command], check=True)

    assert done.returncode == 0
    assert f"The models in {hub} stay (1, 0.0 GiB in all)" in done.stdout
    assert kept
    assert [path.name for path in hub.iterdir()] == ["datasets--org--name"]


def test_uninstall_takes_only_what_is_ours_from_a_folder_that_was_named(home, tmp_path):
    """QRUN_*_DIR may name a folder that holds other things: they stay."""
    shared = tmp_path / "shared"
    for name in ("engines/llamacpp/current.json", "wheels/x.whl", "logs/x.log", "thesis.txt", "data/photo.jpg"):
        (shared / name).parent.mkdir(parents=True, exist_ok=True)
        (shared / name).write_text("")
    folders = {f"QRUN_{kind}_DIR": str(shared) for kind in ("DATA", "CACHE", "STATE")}
    done = home.run("--uninstall", **folders)

    assert done.returncode == 0
    assert sorted(path.name for path in shared.iterdir()) == ["data", "thesis.txt"]


def test_uninstall_knows_everything_that_qrun_keeps():
    """The names of what lies in qrun's folders stand in the script, for folders that are not qrun's alone."""
    paths = [path for path in (ROOT / "src").rglob("*.py") if path.name != "config.py"]
    source = "\n".join(path.read_text() for path in paths)
    config = (ROOT / "src" / "qrun" / "config.py").read_text()
    script = SCRIPT.read_text()
    for kind in ("data", "cache", "state"):
        in_source = r"\bstate" if kind == "state" else rf"config\.{kind}"  # the Hub's cache_dir is not ours
        used = {*re.findall(rf'{in_source}_dir / "([^"]+)"', source)}
        used |= {*re.findall(rf'\b{kind}_dir / "([^"]+)"', config)}
        known = re.search(rf'^  remove_folder .*"\${kind}" (.*)$', script, re.MULTILINE)[1].split()

        assert used
        assert used <= set(known)


@pytest.mark.parametrize("system", ["Linux", "Darwin"])
@pytest.mark.parametrize("xdg", [False, True], ids=["default", "xdg"])
def test_the_script_and_qrun_mean_the_same_folders(home, tmp_path, monkeypatch, system, xdg):
    """What qrun keeps by platformdirs' rules is what the script removes, on both systems."""
    environ = {f"XDG_{kind}_HOME": str(tmp_path / "xdg" / kind) for kind in ("DATA", "CACHE", "STATE") if xdg}
    monkeypatch.setenv("HOME", str(home.path))
    for kind in ("DATA", "CACHE", "STATE"):
        monkeypatch.delenv(f"QRUN_{kind}_DIR", raising=False)
        monkeypatch.delenv(f"XDG_{kind}_HOME", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    if system == sys.platform.capitalize():
        ours = read_config()
        folders = [ours.data_dir, ours.cache_dir, ours.state_dir]
    elif system == "Darwin":
        mac = MacOS("qrun", appauthor=False)
        folders = [mac.user_data_path, mac.user_cache_path, mac.user_state_path]
    else:
        pytest.skip("qrun's own folders are asked on this system")
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "file").write_text("")
    done = home.run("--uninstall", PATH=_path_with_uname(home, tmp_path, system), **environ)

    assert done.stdout == "qrun is removed.\n"
    assert [folder for folder in folders if folder.exists()] == []


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "words"),
    [
        (("--nope",), {}, 2, "unknown argument --nope"),
        (("--version",), {}, 2, "--version needs a version"),
        ((), {"HOME": ""}, 1, "HOME is not set"),
    ],
)
def test_what_cannot_be_meant_is_one_line(home, arguments, environ, code, words):
    """A typo is 2; each refusal is one line on stderr, and nothing was made."""
    done = home.run(*arguments, **environ)

    assert done.returncode == code
    assert words in done.stderr
    assert done.stderr.startswith("install.sh: error: ")
    assert done.stderr.count("\n") == 1
    assert list(home.path.iterdir()) == []


def test_another_system_is_refused_with_the_way_for_it(home, tmp_path):
    """Windows has a script of its own."""
    done = home.run(PATH=_path_with_uname(home, tmp_path, "MINGW64_NT-10.0"))

    assert done.returncode == 1
    assert "install.ps1" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_names_every_option_and_variable(home):
    """What the script takes stands in its help; exit 0."""
    done = home.pipe("--help")
    options = re.findall(r"^      (--[a-z-]+)\)", SCRIPT.read_text(), re.MULTILINE)

    assert done.returncode == 0
    assert len(options) >= 5
    assert [option for option in options if option not in done.stdout] == []
    assert "QRUN_SPEC" in done.stdout


def test_a_download_that_is_cut_off_does_nothing(home):
    """The shell runs what it has read: until the last line that is definitions alone."""
    text = SCRIPT.read_text()
    for part in (text[: len(text) // 3], text[: -len('main "$@"\n')]):
        subprocess.run(
            ["sh"], check=False, input=part, capture_output=True, text=True, env=home.environment(), cwd=home.path
        )

    assert list(home.path.iterdir()) == []


def _home(path, tools, index):
    path.mkdir()
    return Home(path, tools, index, CACHES)


def _stage(home, done):
    environments = sorted(path.name for path in home.tool.iterdir())
    return Stage(home, done, home.ask("--version"), home.engine(), environments)


def _path_with_uname(home, folder, system):
    """PATH with a `uname` that names another system."""
    double = folder / "system" / "uname"
    double.parent.mkdir()
    double.write_text(f"#!/bin/sh\necho {system}\n")
    double.chmod(0o755)
    return f"{double.parent}{os.pathsep}{home.tools}"


def _without_uvs_own(home):
    """What is left of ours: the folder of uv's tools and its lock are uv's, as its cache is."""
    return [path for path in home.left() if not path.startswith(".local/share/uv/tools/.")]


def _kill(process):
    """End the script and all that it started, at once: what has its session."""
    for one in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(one.pid) == process.pid:
                one.kill()
    process.communicate(timeout=30)


def _until(condition, within_s=60):
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
