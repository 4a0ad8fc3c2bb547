"""Fits the constants of the speed model on one half of published measurements and prints the error on the other.

    python scripts/bench/speed_fit.py ROWS.tsv [--write] [--check OTHER.tsv]

ROWS.tsv is split by row, by a fixed seed, within each engine, backend and format. The constants are fitted on one half;
`--write` puts them into src/qrun/data/speed.toml. The tables (Markdown: docs/measurements/speed.md) are of the other
half.
`--check` holds the constants that are in speed.toml now against rows they have not seen, and fits nothing.
"""

import argparse
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from report import table
from speed_rows import Row, read_rows

from qrun.speed import Constants, constants_of, parts_of_token, peak_prefill_tps, seconds_of

SEED = 5
DATA = Path(__file__).resolve().parents[2] / "src" / "qrun" / "data" / "speed.toml"
MARK = "# fitted (scripts/bench/speed_fit.py --write)\n"
FEWEST = 8
# Where few rows speak, these do: what is usual over all engines, and how far (in log; the exponent plainly) a group may
# lie from it.
USUAL = {
    "efficiency": (math.log(0.8), 0.25),
    "layer_s": (math.log(40e-6), 0.8),
    "expert_layer_s": (math.log(50e-6), 0.6),
    "type_exponent": (0.7, 0.3),
}
WEIGHT_OF_USUAL = 0.15
SOFTENED = 0.05  # errors below 5 % count by their square, above it by their size: outliers must not decide
COVERED = 0.86  # the part of the fitted rows that the range holds, so that it holds 80 % of rows not seen
ENOUGH_FOR_A_RANGE = 40  # fitted rows; a group with fewer has no narrower range than all rows have together
PARALLEL_EFFICIENCY = 0.9
ERROR_COLUMNS = ("median error", "9 of 10 below", "in the range", "bias")


def main() -> None:
    """Fit and print, or check and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true", help="hold speed.toml against all of ROWS")
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args()
    rows = read_rows(args.rows)
    if args.check:
        used = constants_in_use(rows)
        show("All rows, by the constants in speed.toml", rows, used)
        print(prefill_table(rows, used))
        return
    fitted_to, held_out = halves(rows, args.seed)
    fitted = fit_all(fitted_to, Counter((*row.group, row.format) for row in rows))
    print(f"{len(rows)} rows, split by seed {args.seed}: {len(fitted_to)} fitted to, {len(held_out)} held out.\n")
    print(constants_table(fitted))
    show("Held-out rows", held_out, fitted)
    print(prefill_table(held_out, fitted))
    show("Rows fitted to", fitted_to, fitted)
    print(seeds_table(rows))
    if args.write:
        write(fitted)


def halves(rows: Sequence[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """Every other row of each engine, backend and format, in an order by chance."""
    chance = random.Random(seed)  # noqa: S311 - a fixed split, no secret
    strata: dict[object, list[Row]] = defaultdict(list)
    for row in rows:
        strata[(*row.group, row.format)].append(row)
    first: list[Row] = []
    second: list[Row] = []
    for stratum in sorted(strata, key=str):
        shuffled = strata[stratum]
        chance.shuffle(shuffled)
        start = chance.randrange(2)
        first += shuffled[start::2]
        second += shuffled[1 - start :: 2]
    return first, second


def seconds(row: Row, constants: Constants) -> float:
    """What the model expects a token of that row to take."""
    parts = parts_of_token(row.shape, row.weights, row.placement, row.hardware, n_before=row.n_before)
    if not row.parallel:
        return sum(seconds_of(part, constants) for part in parts)
    n_layer = row.shape.n_layer
    whole = [replace(one, n_layer=n_layer, n_expert_layer=n_layer if row.shape.n_expert else 0) for one in parts]
    return max(seconds_of(part, constants) for part in whole) / PARALLEL_EFFICIENCY


def fit_all(rows: Sequence[Row], counts: Mapping[tuple[str, str, str], int]) -> dict[tuple[str, str], Constants]:
    """The constants of every engine and backend, with their range and the counts of rows behind them."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    fitted = {group: fit(group, members) for group, members in sorted(groups.items())}
    pooled = [ratio(row, fitted[row.group]) for row in rows if row.engine]
    done = {}
    for group, members in groups.items():
        ratios = [ratio(row, fitted[group]) for row in members]
        low, high = spread(ratios)
        if len(ratios) < ENOUGH_FOR_A_RANGE:
            low, high = min(low, spread(pooled)[0]), max(high, spread(pooled)[1])
        behind = {key[2]: count for key, count in counts.items() if key[:2] == group}
        done[group] = replace(fitted[group], low=low, high=high, rows=behind, prefill_efficiency=prefill_of(members))
    return done


def fit(group: tuple[str, str], rows: Sequence[Row]) -> Constants:
    """The constants with the least error, in log, over `rows`, drawn to what is usual where they say little."""
    by_type = group[0] in ("llamacpp", "ik_llama.cpp")
    names = ["efficiency", "layer_s", "expert_layer_s", *(["type_exponent"] if by_type else [])]
    parts = [(row, row.decode_tps) for row in rows]

    def loss(point: Sequence[float]) -> float:
        constants = at(names, point)
        error = sum(math.hypot(math.log(seconds(row, constants) * tps), SOFTENED) for row, tps in parts)
        pull = sum(((value - USUAL[name][0]) / USUAL[name][1]) ** 2 for name, value in zip(names, point, strict=True))
        return error + WEIGHT_OF_USUAL * pull

    return at(names, least(loss, [USUAL[name][0] for name in names]))


def at(names: Sequence[str], point: Sequence[float]) -> Constants:
    """The constants at a point of the search: logarithms, but for the exponent."""
    values = {
        name: value if name == "type_exponent" else math.exp(value) for name, value in zip(names, point, strict=True)
    }
    values["efficiency"] = min(1.0, values["efficiency"])
    values["type_exponent"] = min(1.5, max(0.0, values.get("type_exponent", 0.0)))
    return Constants(**values, low=1.0, high=1.0, prefill_efficiency=None, rows={})


def least(loss: Callable[[Sequence[float]], float], start: list[float]) -> list[float]:
    """The point of least loss by coordinate steps that halve where none helps."""
    point, best, step = start, loss(start), 0.4
    while step > 0.005:
        moved = False
        for index in range(len(point)):
            for change in (step, -step):
                tried = [value + change * (place == index) for place, value in enumerate(point)]
                if (found := loss(tried)) < best:
                    point, best, moved = tried, found, True
        step = step if moved else step / 2
    return point


def ratio(row: Row, constants: Constants) -> float:
    """Measured over expected rate."""
    return row.decode_tps * seconds(row, constants)


def spread(ratios: Sequence[float]) -> tuple[float, float]:
    """What the range is, as parts of the expected rate, to hold the middle of `ratios`."""
    ordered, cut = sorted(ratios), (1 - COVERED) / 2
    low = ordered[math.floor(cut * (len(ordered) - 1))]
    high = ordered[math.ceil((1 - cut) * (len(ordered) - 1))]
    return round(min(0.93, low), 2), round(max(1.07, high), 2)


def prefill_of(rows: Sequence[Row]) -> float | None:
    """The part of the device's fp16 rate that prompts reach: the median; None of fewer than 8 rows."""
    parts = [row.prefill_tps / full for row in rows if row.prefill_tps and (full := peak(row))]
    return round(median(parts), 3) if len(parts) >= FEWEST else None


def peak(row: Row) -> float | None:
    """Prompt tokens/s at the device's whole fp16 rate."""
    return peak_prefill_tps(row.shape, row.weights, row.placement, row.hardware)


def constants_in_use(rows: Sequence[Row]) -> dict[tuple[str, str], Constants]:
    """Those in speed.toml; groups of engines that qrun does not run are left out, borrowed constants claim nothing."""
    used = {row.group: (row, constants_of(row.engine, kind_of(row))) for row in rows if row.engine}
    return {group: one if row.backend == kind_of(row) else replace(one, rows={}) for group, (row, one) in used.items()}


def kind_of(row: Row) -> str:
    """The backend as the product names it."""
    return row.hardware.gpus[0].kind if row.hardware.gpus else "cpu"


def claimed(row: Row, constants: Mapping[tuple[str, str], Constants]) -> bool:
    """Whether the product says "model" of such a row: an engine of its own, with enough rows of that format."""
    known = constants.get(row.group)
    return row.engine is not None and known is not None and known.rows.get(row.format, 0) >= FEWEST


def show(title: str, rows: Sequence[Row], constants: Mapping[tuple[str, str], Constants]) -> None:
    """The table of errors by engine, backend and format."""
    known = [row for row in rows if row.group in constants]
    inside = [row for row in known if claimed(row, constants)]
    lines = [errors("**all that count**", inside, constants, extrapolated=False)]
    strata: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in known:
        strata[(*row.group, row.format)].append(row)
    for key, members in sorted(strata.items(), key=lambda item: (-len(item[1]), item[0])):
        extrapolated = not claimed(members[0], constants)
        mark = "" if not extrapolated else (" (extrapolated)" if members[0].engine else " (not qrun's)")
        lines.append(errors(" ".join((key[0], key[1], key[2])) + mark, members, constants, extrapolated=extrapolated))
    print(f"\n## {title}\n")
    print(table(["engine, backend, format", "rows", *ERROR_COLUMNS], lines))


def errors(
    name: str, rows: Sequence[Row], constants: Mapping[tuple[str, str], Constants], *, extrapolated: bool
) -> list[str]:
    """One line: the absolute relative error of the expected rate, and how many rows the range holds."""
    if not rows:
        return [name, "0", "", "", "", ""]
    ratios = [ratio(row, constants[row.group]) for row in rows]
    off = sorted(abs(1 / one - 1) for one in ratios)
    held = sum(
        (0.6 if extrapolated else constants[row.group].low)
        <= one
        <= (1.4 if extrapolated else constants[row.group].high)
        for row, one in zip(rows, ratios, strict=True)
    )
    tenth = off[min(len(off) - 1, int(0.9 * len(off)))]
    return [
        name,
        str(len(rows)),
        f"{median(off):.1%}",
        f"{tenth:.0%}",
        f"{held / len(rows):.0%}",
        f"{median(1 / one for one in ratios):.2f}",
    ]


def constants_table(constants: Mapping[tuple[str, str], Constants]) -> str:
    """What was fitted."""
    lines = [
        [" ".join(group), f"{one.efficiency:.2f}", f"{one.type_exponent:.2f}", f"{one.layer_s * 1e6:.0f}",
         f"{one.expert_layer_s * 1e6:.0f}", f"{one.low:.2f} to {one.high:.2f}",
         "" if one.prefill_efficiency is None else f"{one.prefill_efficiency:.2f}"]
        for group, one in sorted(constants.items())
    ]  # fmt: skip
    heads = ["engine, backend", "efficiency", "type exponent", "layer, us", "expert layer, us more", "range", "prefill"]
    return table(heads, lines)


def prefill_table(rows: Sequence[Row], constants: Mapping[tuple[str, str], Constants]) -> str:
    """The error of prefill, where rows have it."""
    off: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        known = constants.get(row.group)
        if row.engine and row.prefill_tps and known and known.prefill_efficiency and (full := peak(row)):
            off[row.group].append(abs(full * known.prefill_efficiency / row.prefill_tps - 1))
    lines = [[" ".join(group), len(one), f"{median(one):.0%}", f"{max(one):.0%}"] for group, one in sorted(off.items())]
    return "\n## Prefill, no part of the claim\n\n" + table(["engine, backend", "rows", "median error", "worst"], lines)


def seeds_table(rows: Sequence[Row]) -> str:
    """The same by other splits: the error must not be one seed's luck."""
    lines = []
    for seed in range(1, 6):
        fitted_to, held_out = halves(rows, seed)
        fitted = fit_all(fitted_to, Counter((*row.group, row.format) for row in rows))
        inside = [row for row in held_out if claimed(row, fitted)]
        lines.append([str(seed), *errors("", inside, fitted, extrapolated=False)[1:]])
    return "\n## Held-out rows by other seeds\n\n" + table(["seed", "rows", *ERROR_COLUMNS], lines)


def write(constants: Mapping[tuple[str, str], Constants]) -> None:
    """Put the constants of qrun's engines into speed.toml, in place of those that the script wrote before."""
    text = DATA.read_text(encoding="utf-8").partition(MARK)[0] + MARK
    for (engine, backend), one in sorted(constants.items()):
        if (
            backend == "sycl"
            or not engine.isalnum()
            or engine not in ("llamacpp", "mlx", "vllm", "exllamav2", "exllamav3")
        ):
            continue
        text += (
            f"[engine.{engine}.{backend}]\nefficiency = {one.efficiency:.3f}\ntype_exponent = {one.type_exponent:.2f}\n"
        )
        text += f"layer_s = {one.layer_s * 1e6:.1f}e-6\nexpert_layer_s = {one.expert_layer_s * 1e6:.1f}e-6\n"
        text += f"low = {one.low}\nhigh = {one.high}\n"
        if one.prefill_efficiency is not None:
            text += f"prefill_efficiency = {one.prefill_efficiency}\n"
        inner = ", ".join(f"{name} = {count}" for name, count in sorted(one.rows.items()))
        text += f"rows = {{ {inner} }}\n\n"
    DATA.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
