"""Tables of cells: each a number with its sample, interval, paper value, verdict, and the dataset it was computed from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import markdown
import numpy as np
import pandas as pd

from blindspots.analysis import statistics
from blindspots.analysis.statistics import NOT_COMPARABLE, Estimate
from blindspots.steps import artifacts
from blindspots.steps.artifacts import whole_file


@dataclass(frozen=True)
class Cell:
    """One number of a table, in one of the `UNITS`. What has no interval has NaN there."""

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
    dataset: str


_WORDS = ("table", "row", "column", "unit", "paper", "verdict", "artifact", "dataset", "row_label", "column_label")
_ONLY_NOTHING_IS_MISSING = {"keep_default_na": False, "na_values": [""]}  # as NA and null may be names

# What a number is, and how it is computed from its datasets, of which there is one for each replicate.
UNITS = {
    "%": "100 × the mean over the images",
    "rms": "the mean over the images that are not NaN",
    "share": "the mean over the rows of images",
    "norm": "the dataset itself",
    "ratio": "the largest over the images",
    "points": "the mean over the first half, less that over the second, of 100 × the mean over the images",
    "probability": "the probability that a value of the first is larger than one of the second, a tie counting half",
}


FORMATS = {"%": ".1f", "points": "+.2f", "rms": ".4f", "share": ".2f", "norm": ".3g", "ratio": ".3g", "probability": ".2f"}


class Source(NamedTuple):
    """A dataset that a number is computed from."""

    path: Path
    dataset: str

    def values(self) -> np.ndarray:
        """Without what is missing: the distortions of images for which no adversarial example was found."""
        with artifacts.read(self.path) as file:
            values = np.atleast_1d(file[self.dataset][()])
        return values if values.dtype == bool else values[~np.isnan(values)]


class Number(NamedTuple):
    """A number as the paper prints it, the images behind it, the stddev that the row's images are amplified to, and the
    network that it is of, where that is not ours."""

    printed: str
    n: int | None
    amplified_to: float | None
    network: str | None = None


Paper = Mapping[tuple[str, str], Number]  # (row, column) -> number


def read_paper(paths: Sequence[Path]) -> Paper:
    """The paper's numbers of a table from its file, or none where the paper has no such table."""
    kinds = {"row": str, "column": str, "network": str, "printed": str, "n": "Int64"}
    frames = [pd.read_csv(path, dtype=kinds, **_ONLY_NOTHING_IS_MISSING) for path in paths]
    return {
        (row, column): Number(printed, *(None if pd.isna(value) else value for value in rest))
        for frame in frames
        for row, column, printed, *rest in frame[["row", "column", *Number._fields]].itertuples(index=False, name=None)
    }


def by_replicate(paths: Sequence[Path], names: Sequence[str]) -> dict[str, list[Path]]:
    """The artifacts of each name, one a replicate, from all of the first replicate's, all of the second's, and so on."""
    return {name: list(paths[place :: len(names)]) for place, name in enumerate(names)}


@dataclass(frozen=True)
class Table:
    """Makes the cells of one table. With `comparable` false no verdict is given."""

    name: str
    paper: Paper
    comparable: bool

    def rate(self, row: str, column: str, sources: Sequence[Source], comparable: bool = True) -> Cell:
        """The share of true values, in percent; a source for each replicate."""
        events = [source.values() for source in sources]
        value, n, *rest = statistics.rate(events)
        percent = Estimate(100 * value, n, *(100 * number for number in rest))
        return self._cell(row, column, "%", percent, events, statistics.compare_rate, sources, comparable)

    def mean(self, row: str, column: str, unit: str, sources: Sequence[Source], comparable: bool = True) -> Cell:
        """The mean of the values; a source for each replicate."""
        values = [source.values() for source in sources]
        return self._cell(row, column, unit, statistics.mean(values), values, statistics.compare_mean, sources, comparable)

    def average(self, row: str, column: str, sources: Sequence[Source]) -> Cell:
        """The mean of what is neither a rate of images nor a distortion."""
        values = [source.values() for source in sources]
        return self._cell(row, column, "share", statistics.mean(values), values, None, sources, comparable=False)

    def difference(self, row: str, column: str, ones: Sequence[Source], others: Sequence[Source]) -> Cell:
        """How much larger one network's rate is than another's, in points of a percent; sources for each replicate of both.

        Its sample are the replicates, so that its interval is that of training again, on the same images.
        """
        rates = [[100 * float(source.values().mean()) for source in sources] for sources in (ones, others)]
        found = statistics.difference(*rates)
        estimate = Estimate(found.value, min(map(len, rates)), found.low, found.high, np.nan)
        return self._cell(row, column, "points", estimate, [], None, [*ones, *others], comparable=False)

    def number(self, row: str, column: str, source: Source) -> Cell:
        """A number that is a dataset. No sample is behind it, so that no test compares it with the paper's."""
        (value,) = source.values()
        return self._cell(row, column, "norm", statistics.alone(value, 1), [], None, [source], comparable=False)

    def largest(self, row: str, column: str, source: Source) -> Cell:
        """The largest of the values, which no test compares either."""
        values = source.values()
        estimate = statistics.alone(values.max() if len(values) else np.nan, len(values))
        return self._cell(row, column, "ratio", estimate, [], None, [source], comparable=False)

    def probability(self, row: str, column: str, one: Source, other: Source) -> Cell:
        """The probability that a value of the first is larger than one of the second."""
        values = one.values(), other.values()
        effect = statistics.larger(*values)
        estimate = Estimate(effect.probability, min(map(len, values)), effect.low, effect.high, np.nan)
        return self._cell(row, column, "probability", estimate, [], None, [one, other], comparable=False)

    def _cell(self, row, column, unit, estimate, replicates, compare, sources, comparable) -> Cell:
        number = self.paper.get((row, column))
        judged = self.comparable and comparable and number is not None and number.network is None
        verdict = compare(replicates, number.printed, number.n) if judged else NOT_COMPARABLE
        printed, n = (number.printed, number.n) if number else (None, None)
        paths, datasets = (";".join(map(str, parts)) for parts in zip(*sources, strict=True))
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
            dataset=datasets,
        )


def read(path: Path) -> pd.DataFrame:
    """The cells of a table, from its file with one line a cell; a name stays one, whatever it looks like."""
    return pd.read_csv(path, dtype=dict.fromkeys(_WORDS, str), **_ONLY_NOTHING_IS_MISSING)


def write(
    outputs: Sequence[Path],
    title: str,
    cells: Sequence[Cell],
    *,
    row_labels: Mapping[str, str],
    column_labels: Mapping[str, str],
    notes: Sequence[str],
    leading: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> None:
    """Write a table's four files: the paper's layout, Markdown and HTML for people, and one line a cell.

    labels:  what people are told for a row or a column, where that is not its name.
    leading: columns of text that stand before the cells, by title: each row's.
    """
    layout, text, page, every_cell = outputs
    frame = pd.DataFrame(cells).astype({"paper_n": "Int64"})
    frame["row_label"] = [row_labels.get(row, row) for row in frame["row"]]
    frame["column_label"] = [column_labels.get(column, column) for column in frame["column"]]
    described = _described_table(title, frame, notes, leading)
    _write(every_cell, frame.to_csv(index=False, float_format="%.10g", lineterminator="\n"))
    _write(layout, _in_layout(frame, map(_rounded, cells), leading).to_csv(lineterminator="\n"))
    _write(text, described)
    _write(
        page,
        PAGE.format(title=title, body=markdown.markdown(described, extensions=["tables"]).replace(" · p ", "<br>paper ")),
    )


def attack_note(settings: Mapping[str, Any]) -> str:
    """How the adversarial examples of a table were made."""
    choices = ", ".join(f"{key} {value}" for key, value in settings["attack"].items())
    note = f"The attack: {choices}."
    if settings["replicates"] > 1:
        note += (
            f" All numbers are means over {settings['replicates']} trainings of every network from different seeds, ± the "
            "standard deviation over them; what stands in brackets is the interval of sampling the images."
        )
    return note


REFINED_NOTE = (
    "The paper's procedure weighs the cross-entropy against |r| and stops a little away from the minimum; refined are the "
    "same examples brought to local minima of |r| under f(x + r) = l itself, with the box. The paper has no such number."
)


VERDICT_NOTE = (
    "A verdict is `differs` when, at the 1 % level, Fisher's exact test rejects that our count and the paper's have one "
    "rate, or a z test that our mean and the paper's are one (its unknown spread taken to be ours). A printed number "
    "stands for all that round to it, and one with a < for all up to it. With one training a network, the tests know of "
    "sampling images alone, and training again moves a number too; with replicates they are t tests that count this as well."
)


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2em }} h1 {{ font-size: 1.4em }} li {{ max-width: 60em }}
table {{ border-collapse: collapse }}
th, td {{ padding: .4em .8em; border-bottom: 1px solid #ccc; text-align: left; white-space: nowrap }}
</style></head><body>
{body}
</body></html>
"""


def _described_table(title: str, frame: pd.DataFrame, notes: Sequence[str], leading) -> str:
    table = _in_layout(frame, map(_described, frame.itertuples()), leading)
    rows, columns = (dict(zip(frame[key], frame[f"{key}_label"], strict=True)) for key in ("row", "column"))
    lines = [
        f"# {title}",
        "",
        "**Ours** [95 % interval] · the paper's (p) · ✓ agrees, ✗ differs, – not comparable.",
        "",
        "| " + " | ".join(["", *(columns.get(column, column) for column in table.columns)]) + " |",
        "|" + " --- |" * (len(table.columns) + 1),
        *("| " + " | ".join([rows[row], *texts]) + " |" for row, *texts in table.itertuples()),
        "",
        *(f"- {note}" for note in notes),
        "",
    ]
    return "\n".join(lines)


def _in_layout(frame: pd.DataFrame, texts, leading) -> pd.DataFrame:
    """The texts of the cells, in the paper's rows and columns."""
    wide = frame.assign(text=list(texts)).pivot(index="row", columns="column", values="text")
    wide = wide.loc[frame["row"].unique(), frame["column"].unique()].fillna("")
    for place, (title, of_rows) in enumerate(leading.items()):
        wide.insert(place, title, [of_rows[row] for row in wide.index])
    return wide


def _described(cell) -> str:
    alone = np.isnan(cell.std_over_seeds)
    form, unit = FORMATS[cell.unit], " %" if cell.unit == "%" else ""
    if unit and not alone:  # several trainings tell rates apart that round to one
        form = ".2f"
    mark = {statistics.AGREES: " ✓", statistics.DIFFERS: " ✗"}.get(cell.verdict, " –")
    if cell.unit not in ("%", "rms") and not isinstance(cell.paper, str):
        mark = ""  # of a kind that the paper has not
    interval = "" if np.isnan(cell.ci_low) else f" [{cell.ci_low:{form}}, {cell.ci_high:{form}}]"
    paper = f" · p {cell.paper}{unit}" if isinstance(cell.paper, str) else ""
    spread = "" if alone else f" ± {cell.std_over_seeds:{form}}"
    return f"**{cell.value:{form}}{spread}{unit}**{interval}{paper}{mark}"


def _rounded(cell: Cell) -> str:
    return f"{cell.value:.2f}" if cell.unit == "%" else f"{cell.value:{FORMATS[cell.unit]}}"


def _write(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
