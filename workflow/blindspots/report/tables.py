"""Cells of tables: numbers with their sample, interval, paper value, verdict, and arrays."""

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
    """A number of a table.

    Attributes:
        table: The table.
        row: The row's name.
        column: The column's name.
        value: The number, in the unit; NaN if there is nothing to compute it from.
        unit: The symbol of its kind, a key of `KINDS`.
        n: The size of the sample.
        ci_low: The lower end of the interval, or NaN.
        ci_high: The upper end of the interval, or NaN.
        std_over_seeds: The standard deviation over the replicates, or NaN.
        paper: The paper's number as it is printed, or None.
        paper_n: The size of the paper's sample, or None.
        verdict: Whether the number agrees with the paper's, differs, or is not comparable.
        artifact: The artifacts of its arrays, with ; between them.
        array: The names of its arrays in these artifacts, with ; between them.
    """

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
    """An array that a number is computed from.

    Attributes:
        path: The artifact.
        array: The array's name in it.
    """

    path: Path
    array: str

    def values(self) -> np.ndarray:
        """Read the array without its missing values.

        A value is missing, for example, for the distortion of an image without an adversarial example.

        Returns:
            The values, (n,).
        Raises:
            ArtifactError: If the artifact cannot be read or is damaged.
        """
        with artifacts.read(self.path) as file:
            values = np.atleast_1d(file[self.array][()])
        return values if values.dtype == bool else values[~np.isnan(values)]


def by_replicate(paths: Sequence[Path], names: Sequence[str]) -> dict[str, list[Path]]:
    """Group artifacts by their name.

    Args:
        paths: All artifacts of the first replicate, then all of the second, and so on.
        names: The names, in the order of the artifacts in each replicate.
    Returns:
        The artifacts of each name, one per replicate.
    """
    return {name: list(paths[place :: len(names)]) for place, name in enumerate(names)}


@dataclass(frozen=True)
class Table:
    """A table, which makes its own cells.

    Attributes:
        name: The name of the table.
        paper: The paper's numbers of the table.
        comparable: Whether verdicts are given. If false, every verdict is `NOT_COMPARABLE`.
    """

    name: str
    paper: Paper
    comparable: bool

    def rate(self, row: str, column: str, sources: Sequence[CellArray], comparable: bool = True) -> Cell:
        """Make a cell with the share of true values, in percent.

        Args:
            row: The row's name.
            column: The column's name.
            sources: One array per replicate, (n,), Boolean.
            comparable: Whether the number can be compared with the paper's.
        Returns:
            The cell.
        """
        events = [source.values() for source in sources]
        value, n, *rest = statistics.rate(events)
        percent = Estimate(100 * value, n, *(100 * number for number in rest))
        return self._cell(row, column, "%", percent, events, statistics.compare_rate, sources, comparable)

    def mean(
        self, row: str, column: str, unit: str, sources: Sequence[CellArray], comparable: bool = True
    ) -> Cell:
        """Make a cell with the mean of the values.

        Args:
            row: The row's name.
            column: The column's name.
            unit: The symbol of the number's kind.
            sources: One array per replicate, (n,).
            comparable: Whether the number can be compared with the paper's.
        Returns:
            The cell.
        """
        values = [source.values() for source in sources]
        return self._cell(
            row, column, unit, statistics.mean(values), values, statistics.compare_mean, sources, comparable
        )

    def average(self, row: str, column: str, sources: Sequence[CellArray]) -> Cell:
        """Make a cell with the mean of values that are neither a rate over images nor a distortion.

        Args:
            row: The row's name.
            column: The column's name.
            sources: One array per replicate, (n,).
        Returns:
            The cell. It is not compared with the paper.
        """
        values = [source.values() for source in sources]
        return self._cell(
            row, column, "share", statistics.mean(values), values, None, sources, comparable=False
        )

    def difference(
        self, row: str, column: str, ones: Sequence[CellArray], others: Sequence[CellArray]
    ) -> Cell:
        """Make a cell with the difference of two networks' rates, in percentage points.

        The replicates are the sample. So the interval is that of training again, on the same images.

        Args:
            row: The row's name.
            column: The column's name.
            ones: The first network's arrays, one per replicate, (n,), Boolean.
            others: The second network's arrays, one per replicate, (n,), Boolean.
        Returns:
            The cell: the first rate less the second. It is not compared with the paper.
        """
        rates = [[100 * float(source.values().mean()) for source in sources] for sources in (ones, others)]
        found = statistics.difference(*rates)
        estimate = Estimate(found.value, min(map(len, rates)), found.low, found.high, np.nan)
        return self._cell(row, column, "points", estimate, [], None, [*ones, *others], comparable=False)

    def number(self, row: str, column: str, source: CellArray) -> Cell:
        """Make a cell from an array with a single value.

        The number has no sample. So no test compares it with the paper's.

        Args:
            row: The row's name.
            column: The column's name.
            source: The array, with one value.
        Returns:
            The cell.
        """
        (value,) = source.values()
        return self._cell(
            row, column, "norm", statistics.without_interval(value, 1), [], None, [source], comparable=False
        )

    def largest(self, row: str, column: str, source: CellArray) -> Cell:
        """Make a cell with the largest of the values. No test compares it with the paper's.

        Args:
            row: The row's name.
            column: The column's name.
            source: The array, (n,).
        Returns:
            The cell, with NaN as its value if the array has no values.
        """
        values = source.values()
        estimate = statistics.without_interval(values.max() if len(values) else np.nan, len(values))
        return self._cell(row, column, "ratio", estimate, [], None, [source], comparable=False)

    def probability(self, row: str, column: str, one: CellArray, other: CellArray) -> Cell:
        """Make a cell with the probability that a value of one array is larger than a value of the other.

        Args:
            row: The row's name.
            column: The column's name.
            one: The first array, (n,).
            other: The second array, (m,).
        Returns:
            The cell. It is not compared with the paper.
        Raises:
            ValueError: If one of the arrays is empty.
        """
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
    """Read the cells of a table.

    A name is always read as text, even if it looks like a number or a missing value.

    Args:
        path: The file of the table with one line per cell.
    Returns:
        One line per cell.
    """
    return pd.read_csv(path, dtype=dict.fromkeys(_WORDS, str), **ONLY_NOTHING_IS_MISSING)
