"""The four files of a table: the paper's layout as CSV, Markdown and HTML, and one line per cell as CSV."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import markdown
import numpy as np
import pandas as pd

from blindspots.analysis import statistics
from blindspots.report.kinds import KINDS
from blindspots.report.tables import Cell
from blindspots.steps.artifacts import whole_file


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
    """Write a table's four files.

    They are the paper's layout as CSV, the same as Markdown and as HTML for people, and a CSV file with one
    line per cell.

    Args:
        outputs: The four paths, in this order.
        title: The title of the table.
        cells: The cells, in the order of the rows and columns.
        row_labels: The text that people see for a row, where it is not the row's name.
        column_labels: The text that people see for a column, where it is not the column's name.
        notes: The notes below the table.
        leading: Columns of text before the cells: the text of each row, by the column's title.
    Raises:
        ArtifactError: If a file cannot be written.
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
        PAGE.format(
            title=title,
            body=markdown.markdown(described, extensions=["tables"]).replace(" · p ", "<br>paper "),
        ),
    )


def attack_note(settings: Mapping[str, Any]) -> str:
    """Describe how the adversarial examples of a table were made.

    Args:
        settings: The settings of the table's step.
    Returns:
        The note.
    """
    choices = ", ".join(f"{key} {value}" for key, value in settings["attack"].items())
    note = f"The attack: {choices}."
    if settings["replicates"] > 1:
        note += (
            f" All numbers are means over {settings['replicates']} trainings of every network from different "
            "seeds, ± the standard deviation over them; what stands in brackets is the interval of sampling "
            "the images."
        )
    return note


REFINED_NOTE = (
    "The paper's procedure weighs the cross-entropy against |r| and stops a little away from the minimum; "
    "refined are the same examples brought to local minima of |r| under f(x + r) = l itself, with the box. "
    "The paper has no such number."
)


VERDICT_NOTE = (
    "A verdict is `differs` when, at the 1 % level, Fisher's exact test rejects that our count and the "
    "paper's have one rate, or a z test that our mean and the paper's are one (its unknown spread taken to "
    "be ours). A printed number stands for all that round to it, and one with a < for all up to it. With one "
    "training a network, the tests know of sampling images alone, and training again moves a number too; "
    "with replicates they are t tests that count this as well."
)


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2em }} h1 {{ font-size: 1.4em }} \
li {{ max-width: 60em }}
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
    """Arrange the texts of the cells in the paper's rows and columns."""
    wide = frame.assign(text=list(texts)).pivot(index="row", columns="column", values="text")
    wide = wide.loc[frame["row"].unique(), frame["column"].unique()].fillna("")
    for place, (title, of_rows) in enumerate(leading.items()):
        wide.insert(place, title, [of_rows[row] for row in wide.index])
    return wide


def _described(cell) -> str:
    alone = np.isnan(cell.std_over_seeds)
    kind = KINDS[cell.unit]
    several_rates = kind.symbol == "%" and not alone
    form = ".2f" if several_rates else kind.format  # A mean over several trainings is more exact.
    mark = {statistics.AGREES: " ✓", statistics.DIFFERS: " ✗"}.get(cell.verdict, " –")
    if not kind.of_images and not isinstance(cell.paper, str):
        mark = ""  # The paper has no numbers of this kind.
    interval = "" if np.isnan(cell.ci_low) else f" [{cell.ci_low:{form}}, {cell.ci_high:{form}}]"
    paper = f" · p {cell.paper}{kind.suffix}" if isinstance(cell.paper, str) else ""
    spread = "" if alone else f" ± {cell.std_over_seeds:{form}}"
    return f"**{cell.value:{form}}{spread}{kind.suffix}**{interval}{paper}{mark}"


def _rounded(cell: Cell) -> str:
    return f"{cell.value:.2f}" if cell.unit == "%" else f"{cell.value:{KINDS[cell.unit].format}}"


def _write(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
