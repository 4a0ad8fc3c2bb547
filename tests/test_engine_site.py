"""What this machine offers an installation: planted compilers and toolkits, and the real loader."""

from dataclasses import replace

import pytest

from qrun.config import read_config
from qrun.engine_site import survey
from qrun.engine_sources import sources_of
from qrun.hardware import Cpu, Hardware
from qrun.units import GIB

MACHINE = Hardware("test", "linux", Cpu("a CPU", "x86_64", isa=frozenset({"avx2"})), 16 * GIB)


@pytest.fixture
def plant(tmp_path):
    """Plants programs in a folder, and returns the folder."""

    def planted(*names, folder="bin"):
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        for name in names:
            (place / name).write_text("#!/bin/sh\n")
            (place / name).chmod(0o755)
        return place

    return planted


def look(hardware=MACHINE, **environ):
    """The survey with nothing but this environment."""
    return survey(sources_of("llamacpp"), read_config(environ), hardware)


@pytest.mark.parametrize(
    ("programs", "found"),
    [
        (("cc", "c++"), ("cc", "c++")),
        (("gcc", "g++"), ("gcc", "g++")),
        (("clang", "clang++"), ("clang", "clang++")),
        (("cc",), None),
        (("g++",), None),
        ((), None),
    ],
)
def test_a_compiler_counts_when_both_halves_are_there(plant, programs, found):
    """llama.cpp is C and C++: with one compiler alone it cannot be built."""
    folder = plant(*programs)

    assert look(PATH=str(folder)).compilers == (tuple(str(folder / name) for name in found) if found else None)


def test_the_users_compilers_are_taken_first(plant):
    """CC and CXX name the compilers, with their flags, as everywhere."""
    folder = plant("cc", "c++", "my-cc", "my-c++")

    site = look(PATH=str(folder), CC="my-cc -pipe", CXX="my-c++")

    assert site.compilers == (str(folder / "my-cc"), str(folder / "my-c++"))


def test_a_users_compiler_that_is_not_there_is_no_compiler(plant):
    """Another compiler in the place of the one that was named would surprise."""
    assert look(PATH=str(plant("cc", "c++")), CC="no-such-cc").compilers is None


def test_a_cuda_toolkit_off_the_path_is_found_by_its_variable(plant, tmp_path):
    """CUDA_HOME is what NVIDIA's own guides have users set."""
    cuda = plant("nvcc", folder="bin")

    assert look(PATH="", CUDA_HOME=str(tmp_path)).tools["nvcc"] == str(cuda / "nvcc")


def test_a_library_that_cannot_be_loaded_is_missing():
    """The loader's own answer: a name that no system has is missing."""
    sources = sources_of("llamacpp")
    wheel = replace(sources.ready.wheels[0], os="linux", libraries=("libno-such-thing.so.9", "libc.so.6"))
    gpu_wheel = replace(wheel, libraries=("libno-vulkan.so.1",))
    sources = replace(
        sources,
        ready=replace(sources.ready, wheels=(wheel,)),
        ready_gpu=replace(sources.ready_gpu, wheels=(gpu_wheel,)),
    )
    site = survey(sources, read_config({}), MACHINE)

    assert site.missing == {"libno-such-thing.so.9", "libno-vulkan.so.1"}


def drivers(tmp_path, **environ):
    """The Vulkan drivers of a machine whose shared folders are all below the test's."""
    folders = {"HOME": "home", "XDG_CONFIG_DIRS": "xdg", "XDG_DATA_DIRS": "share"}
    found = look(PATH="", **{name: str(tmp_path / folder) for name, folder in folders.items()} | environ).vulkan_drivers
    return found - look(PATH="", VK_DRIVER_FILES="", **dict.fromkeys(folders, "/none")).vulkan_drivers  # of /etc


@pytest.mark.parametrize("base", ["share", "xdg", "home/.config", "home/.local/share"])
def test_a_vulkan_driver_is_found_where_its_loader_looks(tmp_path, base):
    """A driver's manifest lies in one of the loader's folders; what is no manifest there is none."""
    folder = tmp_path / base / "vulkan" / "icd.d"
    folder.mkdir(parents=True)
    (folder / "some_icd.json").write_text("{}")
    (folder / "README").write_text("")

    assert drivers(tmp_path) == {"some_icd.json"}


@pytest.mark.parametrize("variable", ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"])
def test_a_variable_names_vulkan_drivers_in_place_of_all_others(tmp_path, variable):
    """Files and folders, as the loader takes them; one that is not there is no driver."""
    usual, own = tmp_path / "share" / "vulkan" / "icd.d", tmp_path / "own"
    for folder in (usual, own):
        folder.mkdir(parents=True)
        (folder / f"{folder.name}.json").write_text("{}")
    named = f"{own}:{tmp_path / 'gone.json'}"

    assert look(PATH="", XDG_DATA_DIRS=str(tmp_path / "share"), **{variable: named}).vulkan_drivers == {"own.json"}


def test_a_variable_adds_vulkan_drivers(tmp_path):
    """VK_ADD_DRIVER_FILES keeps the usual folders."""
    (tmp_path / "mine.json").write_text("{}")

    assert "mine.json" in drivers(tmp_path, VK_ADD_DRIVER_FILES=str(tmp_path / "mine.json"))


def test_linux_and_apple_agree_on_the_name_of_arm():
    """aarch64 and arm64 are one platform to the sources."""
    arm = replace(MACHINE, cpu=replace(MACHINE.cpu, arch="aarch64"))

    assert look(arm).arch == "arm64"
