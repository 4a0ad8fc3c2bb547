"""Instruction sets under one name each, whatever the operating system calls them.

Pure. Only what engines ask for is kept: names are those of Linux's x86 flags (`avx2`, `avx512_vnni`, `amx_int8`) and,
for ARM, the architecture's own words (`neon`, `dotprod`, `i8mm`, `sve`).
"""

from collections.abc import Iterable, Mapping

__all__ = ["isa_of_linux", "isa_of_sysctl"]

# Linux's x86 flags that are kept as they are (Documentation/arch/x86/cpuinfo.rst; arch/x86/include/asm/cpufeatures.h).
_X86_KEPT = frozenset(
    {"ssse3", "sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c", "bmi2", "avx_vnni"}
    | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512ifma", "avx512vbmi", "avx512_vbmi2"}
    | {"avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16"}
)
# Linux's ARM hwcaps (Documentation/arch/arm64/elf_hwcaps.rst) and the one x86 flag with an older name.
_LINUX_RENAMED = {
    "pni": "sse3",
    "asimd": "neon",
    "neon": "neon",  # 32-bit kernels
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
    "sme": "sme",
    "sme2": "sme2",
}
# macOS on Intel: machdep.cpu.features and machdep.cpu.leaf7_features.
_MACOS_X86 = {
    "SSE3": "sse3",
    "SSSE3": "ssse3",
    "SSE4.1": "sse4_1",
    "SSE4.2": "sse4_2",
    "AVX1.0": "avx",
    "AVX2": "avx2",
    "FMA": "fma",
    "F16C": "f16c",
    "BMI2": "bmi2",
    "AVX512F": "avx512f",
    "AVX512BW": "avx512bw",
    "AVX512CD": "avx512cd",
    "AVX512DQ": "avx512dq",
    "AVX512VL": "avx512vl",
    "AVX512IFMA": "avx512ifma",
    "AVX512VBMI": "avx512vbmi",
    "AVX512VNNI": "avx512_vnni",
}
# macOS on Apple silicon: hw.optional.* that say 1.
_MACOS_ARM = {
    "hw.optional.AdvSIMD": "neon",
    "hw.optional.arm.FEAT_FP16": "fp16",
    "hw.optional.arm.FEAT_DotProd": "dotprod",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme",
    "hw.optional.arm.FEAT_SME2": "sme2",
}


def isa_of_linux(flags: Iterable[str]) -> frozenset[str]:
    """The instruction sets among the words of /proc/cpuinfo's `flags` (x86) or `Features` (ARM)."""
    words = set(flags)
    return frozenset(words & _X86_KEPT | {name for flag, name in _LINUX_RENAMED.items() if flag in words})


def isa_of_sysctl(values: Mapping[str, str]) -> frozenset[str] | None:
    """The instruction sets that macOS's sysctl tells of, from whichever of its keys are there; None: of none."""
    if "machdep.cpu.features" in values:
        words = f"{values['machdep.cpu.features']} {values.get('machdep.cpu.leaf7_features', '')}".split()
        return frozenset(_MACOS_X86[word] for word in words if word in _MACOS_X86)
    if any(key in values for key in _MACOS_ARM):
        return frozenset(name for key, name in _MACOS_ARM.items() if values.get(key) == "1")
    return None
