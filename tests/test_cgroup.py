"""Limits by cgroups, on doubles: planted trees in the forms that v1, v2 and containers have."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from planted import plant
from qrun.cgroup import CgroupLimits, read_cgroup
from qrun.units import GIB, MIB

V2_MOUNT = "31 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V1_UNLIMITED = "9223372036854771712\n"


def limits_of(root, own_groups, mounts, files):
    """The limits read from a machine with these groups, mounts and group files."""
    tree = {f"sys/fs/cgroup/{path}": content for path, content in files.items()}
    plant(root, {"proc/self/cgroup": own_groups, "proc/self/mountinfo": mounts, **tree})
    return read_cgroup(root)


def stat(**counts) -> str:
    """A memory.stat of these lines."""
    return "".join(f"{name} {value}\n" for name, value in counts.items())


def test_a_container_with_its_own_namespace_is_read_at_the_top(tmp_path):
    """Version 2 as docker shows it: the path is `/`, the limits stand in the mount's root."""
    limits = limits_of(
        tmp_path,
        "0::/\n",
        V2_MOUNT,
        {
            "memory.max": f"{4 * GIB}\n",
            "memory.high": "max\n",
            "memory.current": f"{GIB}\n",
            "memory.stat": stat(anon=0, file=0),
            "cpu.max": "200000 100000\n",
        },
    )

    assert limits == CgroupLimits(memory_limit_bytes=4 * GIB, memory_free_bytes=3 * GIB, quota_cores=2.0)


def test_the_tightest_limit_of_all_groups_above_holds(tmp_path):
    """A service without a limit of its own is held by its slice's."""
    limits = limits_of(
        tmp_path,
        "0::/user.slice/user-1000.slice/app.scope\n",
        V2_MOUNT,
        {
            "user.slice/memory.max": f"{16 * GIB}\n",
            "user.slice/memory.current": f"{2 * GIB}\n",
            "user.slice/cpu.max": "max 100000\n",
            "user.slice/user-1000.slice/memory.max": f"{8 * GIB}\n",
            "user.slice/user-1000.slice/memory.current": f"{GIB}\n",
            "user.slice/user-1000.slice/cpu.max": "150000 100000\n",
            "user.slice/user-1000.slice/app.scope/memory.max": "max\n",
            "user.slice/user-1000.slice/app.scope/memory.current": "1000\n",
            "user.slice/user-1000.slice/app.scope/cpu.max": "400000 100000\n",
        },
    )

    assert limits == CgroupLimits(memory_limit_bytes=8 * GIB, memory_free_bytes=7 * GIB, quota_cores=1.5)


def test_a_wider_limit_that_others_have_filled_leaves_less(tmp_path):
    """Free is what the fullest group leaves, which need not be the one of the tightest limit."""
    limits = limits_of(
        tmp_path,
        "0::/pod/box\n",
        V2_MOUNT,
        {
            "pod/memory.max": f"{16 * GIB}\n",
            "pod/memory.current": f"{15 * GIB}\n",
            "pod/box/memory.max": f"{8 * GIB}\n",
            "pod/box/memory.current": f"{GIB}\n",
        },
    )

    assert limits.memory_limit_bytes == 8 * GIB
    assert limits.memory_free_bytes == GIB


def test_file_cache_counts_as_free_but_not_what_is_mapped(tmp_path):
    """A read file's pages are given up on demand; a running engine's mapped weights are not to be taken."""
    limits = limits_of(
        tmp_path,
        "0::/\n",
        V2_MOUNT,
        {
            "memory.max": f"{8 * GIB}\n",
            "memory.current": f"{7 * GIB}\n",
            "memory.stat": stat(
                active_file=2 * GIB, inactive_file=3 * GIB, file_mapped=GIB, slab_reclaimable=100 * MIB, shmem=GIB
            ),
        },
    )

    assert limits.memory_free_bytes == GIB + 4 * GIB + 100 * MIB


def test_memory_high_is_a_limit(tmp_path):
    """Past memory.high a group is slowed to a crawl: an engine must stay below."""
    limits = limits_of(
        tmp_path,
        "0::/\n",
        V2_MOUNT,
        {"memory.max": "max\n", "memory.high": f"{6 * GIB}\n", "memory.current": "0\n"},
    )

    assert limits.memory_limit_bytes == 6 * GIB


def test_v1_is_read_per_controller(tmp_path):
    """Version 1: memory and cpu have a tree each, and cache is counted over the whole subtree."""
    limits = limits_of(
        tmp_path,
        "9:name=systemd:/\n4:memory:/docker/a2ffe0\n3:cpu,cpuacct:/docker/a2ffe0\n0::/\n",
        V1_MOUNTS,
        {
            "memory/memory.limit_in_bytes": V1_UNLIMITED,
            "memory/docker/memory.limit_in_bytes": V1_UNLIMITED,
            "memory/docker/a2ffe0/memory.limit_in_bytes": f"{4 * GIB}\n",
            "memory/docker/a2ffe0/memory.usage_in_bytes": f"{3 * GIB}\n",
            "memory/docker/a2ffe0/memory.stat": stat(
                active_file=1, inactive_file=1, total_active_file=GIB, total_inactive_file=GIB, total_mapped_file=GIB
            ),
            "cpu,cpuacct/docker/a2ffe0/cpu.cfs_quota_us": "350000\n",
            "cpu,cpuacct/docker/a2ffe0/cpu.cfs_period_us": "100000\n",
            "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )

    assert limits == CgroupLimits(memory_limit_bytes=4 * GIB, memory_free_bytes=2 * GIB, quota_cores=3.5)


# As a Kubernetes container without a cgroup namespace shows it (moby/moby issue 34584).
POD = "/kubepods/besteffort/pod9a18ffb8/d28e0087cf8f"


@pytest.mark.parametrize("own", [POD, "/", "/../../other"], ids=["whole path", "namespaced", "outside"])
def test_a_mount_that_shows_only_the_container_s_part_is_read_at_its_top(tmp_path, own):
    """/proc/self/cgroup may tell the whole path, `/`, or a path that climbs out: the limits stand at the mount."""
    limits = limits_of(
        tmp_path,
        f"2:memory:{own}\n",
        f"396 394 0:21 {POD} /sys/fs/cgroup/memory ro,nosuid,relatime - cgroup cgroup rw,memory\n",
        {"memory/memory.limit_in_bytes": f"{2 * GIB}\n", "memory/memory.usage_in_bytes": f"{GIB}\n"},
    )

    assert limits.memory_limit_bytes == 2 * GIB
    assert limits.memory_free_bytes == GIB


def test_a_group_that_is_over_its_limit_has_nothing_free(tmp_path):
    """Usage may stand above a limit that was lowered; free is then none, not negative."""
    limits = limits_of(tmp_path, "0::/\n", V2_MOUNT, {"memory.max": f"{GIB}\n", "memory.current": f"{2 * GIB}\n"})

    assert limits.memory_free_bytes == 0


def test_a_limit_whose_usage_is_hidden_leaves_free_unknown(tmp_path):
    """What cannot be read is not guessed."""
    limits = limits_of(tmp_path, "0::/\n", V2_MOUNT, {"memory.max": f"{GIB}\n"})

    assert limits == CgroupLimits(memory_limit_bytes=GIB, memory_free_bytes=None, quota_cores=None)


@pytest.mark.parametrize("own", ["", "nonsense\n", "0::/gone\n"])
def test_without_files_there_is_no_limit(tmp_path, own):
    """A system without cgroups, or with the controllers off, limits nothing."""
    assert limits_of(tmp_path, own, V2_MOUNT, {}) == CgroupLimits()


def test_a_mount_point_with_a_blank_is_found(tmp_path):
    """A blank in a path is escaped in mountinfo, and the path is found all the same."""
    plant(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": "31 23 0:26 / /my\\040groups rw - cgroup2 cgroup2 rw\n",
            "my groups/memory.max": f"{GIB}\n",
        },
    )

    assert read_cgroup(tmp_path).memory_limit_bytes == GIB


@pytest.mark.skipif(sys.platform != "linux", reason="cgroups are Linux's")
def test_a_real_group_of_this_machine_is_seen():
    """The kernel's own files: a process put into a group of 512 MiB below ours reads that limit. Needs root and v1."""
    own = re.search("^[0-9]+:memory:(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    group = Path(f"/sys/fs/cgroup/memory{own[1] if own else ''}/qrun-test-{os.getpid()}")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no group can be made here: {error}")
    try:
        (group / "memory.limit_in_bytes").write_text(str(512 * MIB))
        program = (
            f"import os; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()));"
            "from qrun.cgroup import read_cgroup; print(read_cgroup().memory_limit_bytes)"
        )
        child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    finally:
        group.rmdir()

    assert child.stdout == f"{512 * MIB}\n", child.stderr
