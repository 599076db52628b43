"""The paper's numbers, from the files in config/paper/."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

ONLY_NOTHING_IS_MISSING = {"keep_default_na": False, "na_values": [""]}  # as NA and null may be names


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
    frames = [pd.read_csv(path, dtype=kinds, **ONLY_NOTHING_IS_MISSING) for path in paths]
    return {
        (row, column): Number(printed, *(None if pd.isna(value) else value for value in rest))
        for frame in frames
        for row, column, printed, *rest in frame[["row", "column", *Number._fields]].itertuples(
            index=False, name=None
        )
    }
