"""How the tables move when one choice that the paper leaves open is made otherwise, and which choice lies nearest to it."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from blindspots.analysis.statistics import AGREES, CONFIDENCE, NOT_COMPARABLE, printed_range

_KEY = ["table", "row", "column"]
_WIDTH = 2 * stats.norm.ppf((1 + CONFIDENCE) / 2)  # of an interval, in standard errors


def compare_choices(cells: Mapping[str, pd.DataFrame], reference: str) -> pd.DataFrame:
    """Every cell of every choice beside the same cell as configured: cells by a choice's name -> one line a cell.

    reference: the name of the experiment as it is configured.

    moved: by how much the value changed. deviation: how far it lies from what rounds to the paper's, in standard errors of
    the difference between our sample and the paper's (its unknown spread taken to be ours); empty where the paper has none.
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
    """The value nearest to ours that rounds to what the paper printed; NaN where it printed nothing."""
    return np.clip(value, *printed_range(printed)) if isinstance(printed, str) else np.nan


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """For each choice (index) and table: the median deviation from the paper, and how many of its cells agree."""
    judged = frame.dropna(subset="deviation")
    size = judged.assign(deviation=judged["deviation"].abs(), agree=judged["verdict"] == AGREES)
    tables = size.groupby(["choice", "table"], sort=False).agg(
        deviation=("deviation", "median"), agree=("agree", "sum")
    )
    cells = size.groupby(["choice", "table"], sort=False).size().rename("cells")
    return tables.join(cells).reset_index()
