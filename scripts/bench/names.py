"""How well names find models: hand-made answers over the listing of real quant repos (tests/data/hub_names.jsonl).

    python scripts/bench/names.py [--out docs/measurements/names.md]

The emulated Hub of the tests serves the listing: without any relation tag, with those that older and newer publishers
have, and with all. Needs an interpreter that has qrun installed; takes about three minutes.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from report import table

TESTS = Path(__file__).resolve().parents[2] / "tests"
sys.path.insert(0, str(TESTS))
from hub_names import Measured, measure  # noqa: E402  # lies beside the tests

LEAST_PRECISION, LEAST_RECALL = 0.99, 0.97
HEAD = (
    "relation tags", "queries right", "base without weights there", "wrong", "not found", "precision of repos",
    "recall of repos", "hard negatives taken", "odd as expected", "most calls",
)  # fmt: skip  # a row of a table
CASES = (
    ("none", "none", True),
    ("of newer publishers", "old", True),
    ("all", "all", True),
    ("none, and no base is there", "none", False),
)


def main() -> int:
    """The command line: 0 where every case meets the aims, 3 where one does not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="a Markdown file to write the results to")
    asked = parser.parse_args()
    results = {}
    for name, tags, bases in CASES:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measure(tags, Path(folder), bases=bases)
    report = report_of(results)
    print(report)
    if asked.out:
        asked.out.write_text(report + "\n")
    return 0 if all(map(meets_aims, results.values())) else 3


def meets_aims(result: Measured) -> bool:
    """Precision, recall, and no hard negative."""
    enough = result.precision >= LEAST_PRECISION and result.recall >= LEAST_RECALL
    return enough and not result.negatives_matched and not result.wrong


def report_of(results: dict[str, Measured]) -> str:
    """The page."""
    rows = [row_of(name, result) for name, result in results.items()]
    first = results[CASES[0][0]]
    problems = "\n".join(f"- {one}" for one in first.problems) or "None."
    return f"""# How well names find models

{time.strftime("%Y-%m-%d")}. {TEXT}

{table(HEAD, rows)}

Aims: precision at least {LEAST_PRECISION}, recall at least {LEAST_RECALL}, no hard negative taken.

Of the {first.misses} misses in the first row {first.unseen} are repos of which the listing has projectors or matrices
alone, so that there is nothing to take. Of {first.nearest_asked} spellings that must not be found and are near to
something, {first.nearest_whole} are answered with every name that the label has among the five offered.

What is not as labelled without relation tags:

{problems}

Made by `python scripts/bench/names.py`."""


def row_of(name: str, result: Measured) -> tuple[object, ...]:
    """One case."""
    asked = result.right + result.no_weights + result.wrong + result.not_found
    return (
        name,
        f"{result.right} of {asked}",
        result.no_weights,
        result.wrong,
        result.not_found,
        f"{result.precision:.4f}",
        f"{result.recall:.4f}",
        f"{result.negatives_matched} of {result.negatives}",
        f"{result.odd_right} of {result.odd}" if result.odd else "",
        result.most_calls,
    )


TEXT = """341 base models with 905 spellings, 637 labelled quant repos, 62 hard negatives and 34 odd spellings, held
against what qrun answers over the whole listing (1,317 repos, beside them their bases and 110 repos of further
formats). Repos are counted for every spelling, so that one that finds nothing counts as many misses as its base has
repos. Calls are those of the look-up alone. The labels were at hand when the rules were written: other names will do
worse."""


if __name__ == "__main__":
    sys.exit(main())
