"""What is read of llama.cpp's memory breakdown, from lines that its server printed."""

import pytest

from qrun.runner import PlaceMemory
from qrun.units import MIB
from qrun_llamacpp.breakdown import places_told, refusal

HEAD = "I common_params_fit_impl: getting device memory data for initial parameters:\n"
TITLE = "I common_memory_breakdown_print: | memory breakdown [MiB] | total   free    self   model   context |\n"
DEVICE = (
    "I common_memory_breakdown_print: |   - CUDA0 (RTX 4060)   "
    "|  8188 =  7800 + ( 5296 =  4155 +    1024 +     116) +        -4908 |\n"
)
HOST = "I common_memory_breakdown_print: |   - Host               |      136 =    28 +      90 +      17  |\n"
REPACK = "I common_memory_breakdown_print: |   - CPU_REPACK         |       56 =    56 +       0 +       0  |\n"
AFTER = "I common_params_fit_impl: projected to use 136 MiB of host memory vs. 24105 MiB\n"


def test_each_place_has_its_parts_and_what_is_behind_the_host_is_host_ram():
    """Devices in order by the engine's name, then the host with its repacked weights."""
    told = places_told(HEAD + TITLE + DEVICE + HOST + REPACK + AFTER)

    assert told == (
        PlaceMemory("CUDA0 (RTX 4060)", 4155 * MIB, 1024 * MIB, 116 * MIB),
        PlaceMemory(None, 84 * MIB, 90 * MIB, 17 * MIB),
    )


@pytest.mark.parametrize("so_far", ["", HEAD, HEAD + TITLE + DEVICE, HEAD + TITLE + DEVICE + HOST])
def test_a_table_that_may_go_on_tells_nothing_yet(so_far):
    """Only the line behind it shows that it is whole."""
    assert places_told(so_far) == ()


def test_the_first_table_counts():
    """The engine prints another one as it ends, with what mmap took."""
    later = TITLE + HOST.replace("136", "999").replace("28", "891") + AFTER

    assert places_told(HEAD + TITLE + HOST + AFTER + later) == (PlaceMemory(None, 28 * MIB, 90 * MIB, 17 * MIB),)


@pytest.mark.parametrize(
    ("log", "says"),
    [
        ("error loading model: unknown model architecture: 'qwen9'", "does not know the architecture 'qwen9'"),
        ("gguf_init: tensor 'blk.0.x' has invalid ggml type 139 (NONE)", "does not know the tensor type 139"),
    ],
)
def test_what_can_never_be_loaded_is_told_apart(log, says):
    """An unknown architecture or tensor type is the model's own fault, not the memory's."""
    assert says in refusal(log)


def test_any_other_failure_is_no_refusal():
    """Memory that is short, a damaged file: no word on the model as such."""
    assert refusal("ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 4294967328") is None
