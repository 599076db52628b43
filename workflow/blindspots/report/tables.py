"""Tables of cells: each a number with its sample, interval, paper value, verdict, and the array it was computed from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from blindspots.analysis import statistics
from blindspots.analysis.statistics import NOT_COMPARABLE, Estimate
from blindspots.report.paper import ONLY_NOTHING_IS_MISSING, Paper
from blindspots.steps import artifacts


@dataclass(frozen=True)
class Cell:
    """One number of a table, in one of the `KINDS`. What has no interval has NaN there."""

    table: str
    row: str
    column: str
    value: float
    unit: str
    n: int
    ci_low: float
    ci_high: float
    std_over_seeds: float
    paper: str | None
    paper_n: int | None
    verdict: str
    artifact: str
    array: str


_WORDS = (
    "table",
    "row",
    "column",
    "unit",
    "paper",
    "verdict",
    "artifact",
    "array",
    "row_label",
    "column_label",
)


class CellArray(NamedTuple):
    """A array that a number is computed from."""

    path: Path
    array: str

    def values(self) -> np.ndarray:
        """Without what is missing: the distortions of images for which no adversarial example was found."""
        with artifacts.read(self.path) as file:
            values = np.atleast_1d(file[self.array][()])
        return values if values.dtype == bool else values[~np.isnan(values)]


def by_replicate(paths: Sequence[Path], names: Sequence[str]) -> dict[str, list[Path]]:
    """The artifacts of each name, one a replicate, from all of the first replicate's, all of the second's, and so on."""
    return {name: list(paths[place :: len(names)]) for place, name in enumerate(names)}


@dataclass(frozen=True)
class Table:
    """Makes the cells of one table. With `comparable` false no verdict is given."""

    name: str
    paper: Paper
    comparable: bool

    def rate(self, row: str, column: str, sources: Sequence[CellArray], comparable: bool = True) -> Cell:
        """The share of true values, in percent; a source for each replicate."""
        events = [source.values() for source in sources]
        value, n, *rest = statistics.rate(events)
        percent = Estimate(100 * value, n, *(100 * number for number in rest))
        return self._cell(row, column, "%", percent, events, statistics.compare_rate, sources, comparable)

    def mean(
        self, row: str, column: str, unit: str, sources: Sequence[CellArray], comparable: bool = True
    ) -> Cell:
        """The mean of the values; a source for each replicate."""
        values = [source.values() for source in sources]
        return self._cell(
            row, column, unit, statistics.mean(values), values, statistics.compare_mean, sources, comparable
        )

    def average(self, row: str, column: str, sources: Sequence[CellArray]) -> Cell:
        """The mean of what is neither a rate of images nor a distortion."""
        values = [source.values() for source in sources]
        return self._cell(
            row, column, "share", statistics.mean(values), values, None, sources, comparable=False
        )

    def difference(
        self, row: str, column: str, ones: Sequence[CellArray], others: Sequence[CellArray]
    ) -> Cell:
        """How much larger one network's rate is than another's, in points of a percent; sources for each replicate of both.

        Its sample are the replicates, so that its interval is that of training again, on the same images.
        """
        rates = [[100 * float(source.values().mean()) for source in sources] for sources in (ones, others)]
        found = statistics.difference(*rates)
        estimate = Estimate(found.value, min(map(len, rates)), found.low, found.high, np.nan)
        return self._cell(row, column, "points", estimate, [], None, [*ones, *others], comparable=False)

    def number(self, row: str, column: str, source: CellArray) -> Cell:
        """A number that is a array. No sample is behind it, so that no test compares it with the paper's."""
        (value,) = source.values()
        return self._cell(
            row, column, "norm", statistics.without_interval(value, 1), [], None, [source], comparable=False
        )

    def largest(self, row: str, column: str, source: CellArray) -> Cell:
        """The largest of the values, which no test compares either."""
        values = source.values()
        estimate = statistics.without_interval(values.max() if len(values) else np.nan, len(values))
        return self._cell(row, column, "ratio", estimate, [], None, [source], comparable=False)

    def probability(self, row: str, column: str, one: CellArray, other: CellArray) -> Cell:
        """The probability that a value of the first is larger than one of the second."""
        values = one.values(), other.values()
        effect = statistics.probability_larger(*values)
        estimate = Estimate(effect.probability, min(map(len, values)), effect.low, effect.high, np.nan)
        return self._cell(row, column, "probability", estimate, [], None, [one, other], comparable=False)

    def _cell(self, row, column, unit, estimate, replicates, compare, sources, comparable) -> Cell:
        number = self.paper.get((row, column))
        judged = self.comparable and comparable and number is not None and number.network is None
        verdict = compare(replicates, number.printed, number.n) if judged else NOT_COMPARABLE
        printed, n = (number.printed, number.n) if number else (None, None)
        paths, arrays = (";".join(map(str, parts)) for parts in zip(*sources, strict=True))
        return Cell(
            table=self.name,
            row=row,
            column=column,
            value=estimate.value,
            unit=unit,
            n=estimate.n,
            ci_low=estimate.low,
            ci_high=estimate.high,
            std_over_seeds=estimate.std,
            paper=printed,
            paper_n=n,
            verdict=verdict,
            artifact=paths,
            array=arrays,
        )


def read(path: Path) -> pd.DataFrame:
    """The cells of a table, from its file with one line a cell; a name stays one, whatever it looks like."""
    return pd.read_csv(path, dtype=dict.fromkeys(_WORDS, str), **ONLY_NOTHING_IS_MISSING)
