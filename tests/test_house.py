"""Rules of the house that no linter knows: sentences over tests, short modules, no traces of anybody's machine."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "runners").rglob("*.py")])
TESTS = sorted((ROOT / "tests").glob("test_*.py"))
MOST_LINES = 400

# A home or work folder of one machine; `~`, `$HOME` and examples under /path are everybody's.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:work|root|home/\w+|Users/\w+)(?:/|\b)")


def _id(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", TESTS, ids=_id)
def test_every_test_states_its_rule(path):
    """A test function has a docstring of one sentence: the rule that it holds."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    tests = [function for function in functions if function.name.startswith("test_")]

    assert tests
    assert [test.name for test in tests if not (ast.get_docstring(test) or "").endswith((".", "?"))] == []


@pytest.mark.parametrize("path", TESTS, ids=_id)
def test_no_test_module_defines_a_test_twice(path):
    """A second function of the same name would silently replace the first."""
    names = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]

    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_a_module_says_what_it_is_and_is_short(path):
    """A module opens with what it is for, and what no longer fits in 400 lines holds more than one thing."""
    text = path.read_text()

    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) < MOST_LINES


@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_a_module_names_what_it_offers(path):
    """`__all__` tells what others may call; a module without public names needs none."""
    body = ast.parse(path.read_text()).body
    public = [n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
    assigned = [node.targets[0] for node in body if isinstance(node, ast.Assign)]

    assert not public or any(isinstance(target, ast.Name) and target.id == "__all__" for target in assigned)


def test_no_tracked_file_names_a_place_of_one_machine():
    """What is true of one machine only has no place in the repository."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=False, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout: nothing says which files are ours")
    found = [
        f"{name}:{number}"
        for name in filter(None, listed.stdout.split("\0"))
        if (ROOT / name).suffix in {"", ".md", ".py", ".sh", ".toml"} and (ROOT / name).is_file()
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]

    assert found == []
