"""Native wheels: keyed by all that shapes them, verified when they are taken again, built with ninja's count."""

import json
import os
import zipfile
from dataclasses import replace

import pytest

from engine_packages import make_source
from qrun.engine_build import build_wheel, keep_wheel, kept_wheel, wheel_key
from qrun.engine_env import Workshop, make_environment
from qrun.engine_sources import Recipe, Site
from qrun.errors import Failure
from qrun.hardware import Cpu, Hardware
from qrun.units import GIB

RECIPE = Recipe("native", "native_engine", "2.0", ("0" * 64,), frozenset({"cpu"}), ("-DA=ON",))
SITE = Site("linux", "x86_64", frozenset({"avx2"}), (2, 36), frozenset(), ("true", "true"), {})
MACHINE = Hardware("test", "linux", Cpu("a CPU", "x86_64", 8, isa=frozenset({"avx2"})), 16 * GIB)


@pytest.fixture
def packages(tmp_path):
    """The folder that pip takes packages from."""
    folder = tmp_path / "packages"
    folder.mkdir()
    return folder


@pytest.fixture
def build(tmp_path, packages):
    """Builds the recipe; returns the wheel and the counts that were told."""

    def built(recipe, key):
        environ = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(packages)}
        workshop = Workshop(tmp_path / "scratch", tmp_path / "build.log", environ)
        counts = []
        wheel = build_wheel(
            recipe,
            key=key,
            site=SITE,
            hardware=MACHINE,
            python=make_environment(tmp_path / "env", workshop),
            into=tmp_path / "wheels" / "new-1",
            workshop=workshop,
            progress=lambda done, total: counts.append((done, total)),
        )
        return wheel, counts

    return built


def test_a_build_counts_its_parts_and_gets_the_flags(build, packages):
    """The progress is ninja's own, and the flags reach the build whole."""
    recipe = replace(RECIPE, sha256=(make_source(packages),))
    key = wheel_key(recipe, SITE, MACHINE, users_cmake_args="-DB='x y'")
    wheel, counts = build(recipe, key)

    assert counts == [(1, 3), (2, 3), (3, 3)]
    assert zipfile.ZipFile(wheel).read("native_engine/flags.txt").decode() == "-DA=ON -DB='x y'"


def test_a_build_that_fails_tells_the_compilers_line(build, packages):
    """The error is the compiler's, not pip's word that there was one."""
    behaviour = "print('part.c:7:3: error: unknown type name', flush=True); sys.exit(1)"
    recipe = replace(RECIPE, sha256=(make_source(packages, behaviour),))

    with pytest.raises(Failure, match=r"part\.c:7:3: error: unknown type name.*build\.log"):
        build(recipe, wheel_key(recipe, SITE, MACHINE))


def test_a_kept_wheel_is_taken_again(build, packages, tmp_path):
    """One machine builds once: the second time the same bytes are there."""
    recipe = replace(RECIPE, sha256=(make_source(packages),))
    key = wheel_key(recipe, SITE, MACHINE)
    wheels = tmp_path / "wheels"
    wheel, _ = build(recipe, key)
    before = kept_wheel(wheels, key)
    place = keep_wheel(wheels, key, wheel)

    assert before is None
    assert kept_wheel(wheels, key) == place
    assert [path.name for path in wheels.iterdir()] == [key.folder]


def test_a_kept_wheel_whose_bytes_changed_is_not_taken(tmp_path):
    """A damaged cache is built anew, never installed."""
    key = wheel_key(RECIPE, SITE, MACHINE)
    folder = tmp_path / key.folder
    folder.mkdir()
    (folder / "a.whl").write_bytes(b"one")
    (folder / "wheel.json").write_text(json.dumps({"name": "a.whl", "sha256": "0" * 64}))

    assert kept_wheel(tmp_path, key) is None


@pytest.mark.parametrize("record", ["", "{}", "[]", '{"name": "gone.whl", "sha256": ""}'])
def test_a_record_that_cannot_be_read_keeps_no_wheel(tmp_path, record):
    """Half a folder is as good as none."""
    key = wheel_key(RECIPE, SITE, MACHINE)
    (tmp_path / key.folder).mkdir()
    (tmp_path / key.folder / "wheel.json").write_text(record)

    assert kept_wheel(tmp_path, key) is None


@pytest.mark.parametrize(
    ("recipe", "site", "machine", "users"),
    [
        (replace(RECIPE, version="2.1"), SITE, MACHINE, ""),
        (replace(RECIPE, cmake_args=("-DA=OFF",)), SITE, MACHINE, ""),
        (RECIPE, replace(SITE, glibc=(2, 40)), MACHINE, ""),
        (RECIPE, replace(SITE, compilers=("python3", "python3")), MACHINE, ""),
        (RECIPE, SITE, replace(MACHINE, cpu=replace(MACHINE.cpu, isa=frozenset({"avx512f"}))), ""),
        (RECIPE, SITE, replace(MACHINE, cpu=replace(MACHINE.cpu, name="another CPU")), ""),
        (RECIPE, SITE, MACHINE, "-DMINE=ON"),
    ],
)
def test_whatever_shapes_a_wheel_changes_its_key(recipe, site, machine, users):
    """A wheel built with other flags, by another compiler or for another processor is never handed over."""
    assert wheel_key(recipe, site, machine, users_cmake_args=users).folder != wheel_key(RECIPE, SITE, MACHINE).folder


def test_free_memory_does_not_change_the_key():
    """What does not shape the wheel does not build it twice."""
    busy = replace(MACHINE, ram_free_bytes=GIB)

    assert wheel_key(RECIPE, SITE, busy) == wheel_key(RECIPE, SITE, MACHINE)
