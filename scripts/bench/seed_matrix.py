"""What guides tell users beside what qrun decides, as Markdown: docs/measurements/departures.md.

    python scripts/bench/seed_matrix.py

Every row of tests/data/seed_matrix.toml on its machines, over the real files in tests/data. Nothing is measured here:
the figures are those that the decision goes by (quality.toml, speed.toml).
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from report import table

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from seed_matrix import QUESTIONS, ROWS, Question

_HEAD = """\
# Where qrun departs from the guides

What guides to quantization tell users to pick by hand (`tests/data/seed_matrix.toml`), and what qrun decides on the
same machines, over the same real files, with every engine at hand that runs there. Printed by
`scripts/bench/seed_matrix.py`. The KLDs and rates are those that the decision goes by, and the explanation of each such
choice cites them (`why`). What the row names and was an option always has the greater loss, by more than .002 KLD, or
the lower rate.
"""
SERVED = [question for question in QUESTIONS if question.goal != "finetune"]


def main() -> None:
    """Print the page."""
    departing = [one for one in SERVED if one.departs(one.decided().chosen.candidate)]
    print(_HEAD)
    print(table(("row", "asked", "agrees"), _counts(departing)), "\n")
    print("## Every departure\n")
    print(table(("row", "machine", "model", "goal", "chosen", "what the row names"), map(_departure, departing)), "\n")
    print("## Every choice\n")
    print(table(("row", "machine", "model", "goal", "chosen"), map(_choice, SERVED)))


def _counts(departing: list[Question]) -> Iterator[tuple[object, ...]]:
    for row in ROWS:
        asked = [one for one in QUESTIONS if one.row is row]
        yield row["name"], len(asked), len(asked) - len([one for one in departing if one.row is row])


def _choice(question: Question) -> tuple[str, ...]:
    chosen = question.decided().chosen
    figures = f"KLD {chosen.quality.kld:.4f}, {chosen.speed.decode_tps:.1f} tokens/s, {chosen.placement.mode}"
    return *str(question).split(" | "), f"{chosen.candidate.quant} of {chosen.candidate.repo_id}: {figures}"


def _departure(question: Question) -> tuple[str, ...]:
    why = [
        line for line in question.decided().chosen.why if line.startswith("guides name") and "the best of them" in line
    ]
    named = [line.partition("the best of them, ")[2].partition(", the chosen")[0] for line in why]
    return *_choice(question), "; ".join(named)


if __name__ == "__main__":
    main()
