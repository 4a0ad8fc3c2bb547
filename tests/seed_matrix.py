"""The guides' rows as questions to the resolver: what it decides for each, and whether it departs from the row."""

import tomllib
from dataclasses import dataclass

from case_models import DATA, found
from qrun.engine_models import simulated_states
from qrun.model import FORMATS, Candidate
from qrun.profiles import profile_named
from qrun.quality import plain_label
from qrun.request import Request
from qrun.resolution import Resolution
from qrun.resolve import resolve

ROWS = tomllib.loads((DATA / "seed_matrix.toml").read_text())["row"]
_DECIDED = {}


@dataclass(frozen=True, slots=True)
class Question:
    """One row of the matrix on one machine, for one model and goal."""

    row: dict
    machine: str
    model: str
    goal: str

    def __str__(self):
        return f"{self.row['name']} | {self.machine} | {self.model.rpartition('/')[2]} | {self.goal}"

    def decided(self) -> Resolution:
        """What qrun chooses; decided once."""
        if str(self) not in _DECIDED:
            _DECIDED[str(self)] = self._decide()
        return _DECIDED[str(self)]

    def _decide(self) -> Resolution:
        hardware = profile_named(self.machine)
        engines = simulated_states(hardware)
        if self.row["engines"] != "all":
            engines = tuple(one for one in engines if one.runner in self.row["engines"])
        request = Request(self.model, goal=self.goal, placement=self.row.get("placement", "auto"))
        return resolve(request, found(self.model, formats=FORMATS), hardware, engines)

    def departs(self, candidate: Candidate) -> bool:
        """Whether that candidate is none of those that the row names."""
        if candidate.format not in self.row["formats"]:
            return True
        return "quants" in self.row and plain_label(candidate.quant) not in self.row["quants"]


QUESTIONS = [
    Question(row, machine, model, goal)
    for row in ROWS
    for machine in row["machines"]
    for model in row["models"]
    for goal in row["goals"]
]
