"""Effect of each ablation on the tables: how far cells move, and which choice is nearest to the paper.

Each ablation changes one choice that the paper leaves open.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from blindspots.analysis.statistics import AGREES, CONFIDENCE, NOT_COMPARABLE, printed_range

_KEY = ["table", "row", "column"]
_WIDTH = 2 * stats.norm.ppf((1 + CONFIDENCE) / 2)  # width of an interval in standard errors


def compare_choices(cells: Mapping[str, pd.DataFrame], reference: str) -> pd.DataFrame:
    """Compare every cell of every choice with the same cell of the configured experiment.

    The column `moved` is the change of the value. The column `deviation` is the distance from the nearest
    value that rounds to the paper's number. Its unit is the standard error of the difference between our
    sample and the paper's, whose unknown spread is taken to be ours. It is NaN where the paper has no
    comparable number.

    Args:
        cells: The cells of all tables, by the name of the choice, one line per cell.
        reference: The name of the experiment as it is configured.
    Returns:
        One line per cell and choice.
    """
    frame = pd.concat([part.assign(choice=choice) for choice, part in cells.items()], ignore_index=True)
    as_configured = cells[reference].set_index(_KEY)["value"].rename("as_configured")
    frame = frame.join(as_configured, on=_KEY)
    frame["moved"] = frame["value"] - frame["as_configured"]
    error = (frame["ci_high"] - frame["ci_low"]) / _WIDTH * np.sqrt(1 + frame["n"] / frame["paper_n"])
    comparable = frame["verdict"] != NOT_COMPARABLE
    nearest = [_nearest(*pair) for pair in zip(frame["value"], frame["paper"], strict=True)]
    frame["deviation"] = ((frame["value"] - nearest) / error).where(comparable)
    columns = [
        "choice",
        *_KEY,
        "value",
        "unit",
        "n",
        "as_configured",
        "moved",
        "paper",
        "deviation",
        "verdict",
    ]
    return frame[columns]


def _nearest(value: float, printed: str | float) -> float:
    """Return the value nearest to ours that rounds to the paper's printed number; NaN if there is none."""
    return np.clip(value, *printed_range(printed)) if isinstance(printed, str) else np.nan


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Summarise the deviations of each choice and table.

    Args:
        frame: As `compare_choices` returns it.
    Returns:
        One line per choice and table, with the median size of the deviation from the paper, in standard
        errors, the number of cells that agree, and the number of cells with a deviation.
    """
    judged = frame.dropna(subset="deviation")
    size = judged.assign(deviation=judged["deviation"].abs(), agree=judged["verdict"] == AGREES)
    tables = size.groupby(["choice", "table"], sort=False).agg(
        deviation=("deviation", "median"), agree=("agree", "sum")
    )
    cells = size.groupby(["choice", "table"], sort=False).size().rename("cells")
    return tables.join(cells).reset_index()
