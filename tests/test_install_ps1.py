"""`scripts/install.ps1`, read and not run: there is no PowerShell here. It must not drift from `scripts/install.sh`."""

import re

from platformdirs.windows import Windows

from install_homes import ROOT

TEXT = (ROOT / "scripts" / "install.ps1").read_text(encoding="ascii")  # Windows PowerShell 5 reads no UTF-8 unasked
SHELL = (ROOT / "scripts" / "install.sh").read_text()


def test_it_takes_the_options_of_the_shell_script():
    """Every option of install.sh has its parameter, and there is none besides."""
    options = set(re.findall(r"^      (--[a-z-]+)\)", SHELL, re.MULTILINE))
    parameters = re.findall(r"^    \[(?:string|switch)\] \$(\w+)", TEXT, re.MULTILINE)

    assert {_option(name) for name in parameters} == options


def test_it_removes_what_the_shell_script_removes():
    """The names of what qrun keeps in folders that were named are the same; the installer's own log is the shell's."""
    for kind in ("data", "cache", "state"):
        known = re.search(rf'^  remove_folder .*"\${kind}" (.*)$', SHELL, re.MULTILINE)[1].split()
        names = re.search(rf"QRUN_{kind.upper()}_DIR\) \{{\s*\$paths \+= (.*?) \|", TEXT)[1]

        assert set(re.findall(r"'([^']+)'", names)) == set(known) - {"install.log"}


def test_it_asks_nothing_and_needs_no_administrator():
    """No prompt, no elevation; what comes from the network comes through pip or uv."""
    for word in ("Read-Host", "-Confirm", "RunAs", "Invoke-WebRequest", "Invoke-Expression"):
        assert word not in TEXT


def test_its_brackets_are_closed():
    """Outside of strings and comments every bracket has its partner: the little that can be said without PowerShell."""
    code = re.sub(r'"(?:`.|[^"`])*"|\'[^\']*\'|#.*', "", TEXT)
    open_ones = []
    for bracket in re.findall(r"[(){}\[\]]", code):
        if bracket in "({[":
            open_ones.append(bracket)
        else:
            assert open_ones.pop() + bracket in {"()", "{}", "[]"}

    assert open_ones == []


def test_the_platforms_folder_is_the_one_that_qrun_uses(monkeypatch):
    """By platformdirs' rules all of it lies in LOCALAPPDATA under qrun's name, which the script removes."""
    monkeypatch.setattr("platformdirs.windows.get_win_folder", lambda _: r"C:\Local")
    folders = Windows("qrun", appauthor=False)

    assert folders.user_data_dir.replace("/", "\\") == r"C:\Local\qrun"
    assert folders.user_state_dir.replace("/", "\\") == r"C:\Local\qrun"
    assert folders.user_cache_dir.replace("/", "\\").startswith("C:\\Local\\qrun\\")
    assert "Join-Path $env:LOCALAPPDATA 'qrun'" in TEXT


def _option(parameter):
    return "--" + re.sub(r"(?<!^)(?=[A-Z])", "-", parameter).lower()
