"""The paper's numbers, from the files in config/paper/."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

ONLY_NOTHING_IS_MISSING = {"keep_default_na": False, "na_values": [""]}  # NA and null may be names


class Number(NamedTuple):
    """A number of the paper.

    Attributes:
        printed: The number as the paper prints it.
        n: The number of images behind it, or None.
        amplified_to: The standard deviation that the row's images are amplified to, or None.
        network: The network that the number belongs to, if it is another than ours, or None.
    """

    printed: str
    n: int | None
    amplified_to: float | None
    network: str | None = None


Paper = Mapping[tuple[str, str], Number]  # (row, column) -> number


def read_paper(paths: Sequence[Path]) -> Paper:
    """Read the paper's numbers of a table.

    Args:
        paths: The file of the table, or no file if the paper has no such table.
    Returns:
        The numbers by row and column.
    """
    kinds = {"row": str, "column": str, "network": str, "printed": str, "n": "Int64"}
    frames = [pd.read_csv(path, dtype=kinds, **ONLY_NOTHING_IS_MISSING) for path in paths]
    return {
        (row, column): Number(printed, *(None if pd.isna(value) else value for value in rest))
        for frame in frames
        for row, column, printed, *rest in frame[["row", "column", *Number._fields]].itertuples(
            index=False, name=None
        )
    }
