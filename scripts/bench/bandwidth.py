"""How qrun's measurement of RAM compares with a C program that reads memory with as many threads, in turns.

    python scripts/bench/bandwidth.py [--pairs 8]

Needs a C compiler (`cc`). Prints Markdown: docs/measurements/speed.md.
"""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

from report import machine_line, median_range, table

from qrun.bandwidth import measure_read_bandwidth

READER = r"""
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
static const size_t n = 256u << 20;
static volatile uint64_t sink;
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec * 1e-9; }
static void *run(void *block) {
    uint64_t *a = block, s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (size_t i = 0; i < n / 8; i += 4) { s0 += a[i]; s1 += a[i + 1]; s2 += a[i + 2]; s3 += a[i + 3]; }
    sink += s0 + s1 + s2 + s3;
    return 0;
}
int main(int argc, char **argv) {
    int threads = atoi(argv[1]);
    void *blocks[64];
    double best = 0;
    for (int i = 0; i < threads; i++) { blocks[i] = malloc(n); memset(blocks[i], 1, n); }
    for (int k = 0; k < 8; k++) {
        pthread_t ids[64];
        double start = now();
        for (int i = 0; i < threads; i++) pthread_create(&ids[i], 0, run, blocks[i]);
        for (int i = 0; i < threads; i++) pthread_join(ids[i], 0);
        double rate = threads * n / (now() - start);
        if (rate > best) best = rate;
    }
    printf("%f\n", best);
    return argc ? 0 : 1;
}
"""


def main() -> None:
    """Measure in turns and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8)
    pairs = parser.parse_args().pairs
    counts = sorted({1, os.cpu_count() or 1})
    with tempfile.TemporaryDirectory() as folder:
        reader = Path(folder) / "reader"
        command = ["cc", "-O3", "-march=native", "-pthread", "-x", "c", "-", "-o", str(reader)]
        subprocess.run(command, input=READER, text=True, check=True)
        found = {count: [(_ours(count), _c(reader, count)) for _ in range(pairs)] for count in counts}
    rows = []
    for count, both in found.items():
        ours, theirs = zip(*both, strict=True)
        rows.append([count, median_range(ours, 1), median_range(theirs, 1), f"{max(ours) / max(theirs):.2f}"])
    print(f"{machine_line()}\n")
    print(table(["threads", "qrun, GB/s", "C, GB/s", "best over best"], rows))


def _ours(count: int) -> float:
    found = measure_read_bandwidth(count)
    if found is None:
        raise SystemExit("nothing was measured")
    return found / 1e9


def _c(reader: Path, count: int) -> float:
    return float(subprocess.run([reader, str(count)], capture_output=True, text=True, check=True).stdout) / 1e9


if __name__ == "__main__":
    main()
