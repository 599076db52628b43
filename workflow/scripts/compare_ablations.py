"""Compare the tables under ablations, in which one choice at a time is made differently.

It writes by how much each cell moves, and which choice comes nearest to the paper.
"""

import numpy as np
import pandas as pd

from blindspots.report import figures, tables
from blindspots.report.ablations import compare_choices, summary
from blindspots.steps.artifacts import whole_file
from blindspots.steps.step import Step, log, run


def body(step: Step) -> None:
    """Compare the ablations and write a table (CSV), a text (Markdown) and a figure.

    Args:
        step: The run. Its input is `cells`: the cell files of the first choice's tables, then those of the
            next choice, and so on. Its settings are `choices` (names, the first is the reference) and
            `tables`.
    """
    settings = step.settings
    parts = np.array_split(np.array(step.inputs["cells"]), len(settings["choices"]))
    cells = {
        choice: pd.concat([tables.read(path) for path in paths], ignore_index=True)
        for choice, paths in zip(settings["choices"], parts, strict=True)
    }
    frame = compare_choices(cells, reference=settings["choices"][0])
    table, text, picture = step.output
    with whole_file(table) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    with whole_file(text) as temporary:
        temporary.write_text(_described(frame, settings["choices"], settings["tables"]), encoding="utf-8")
    figures.save(figures.deviations(frame, settings["choices"], settings["tables"]), picture)
    log.info("wrote %s", table)


def _described(frame: pd.DataFrame, choices: list[str], named: list[str]) -> str:
    """The comparison as Markdown, with a line for each choice and a column for each table."""
    found = summary(frame).set_index(["choice", "table"])
    nearest = {
        name: found["deviation"].xs(name, level="table").idxmin()
        for name in named
        if name in found.index.unique(1)
    }
    lines = [
        "# One choice at a time",
        "",
        "The median deviation of a table's cells from the paper's, in standard errors "
        "(and how many of them agree with it); **nearest** is the smallest in a column. "
        "`ablations.csv` has every cell, and by how much it moved.",
        "",
        "| choice | " + " | ".join(named) + " |",
        "|" + " --- |" * (len(named) + 1),
    ]
    for choice in choices:
        texts = []
        for name in named:
            if (choice, name) not in found.index:
                texts.append("–")
                continue
            line = found.loc[(choice, name)]
            value = f"{line.deviation:.1f}" + (", **nearest**" if nearest[name] == choice else "")
            texts.append(f"{value} ({line.agree:.0f} of {line.cells:.0f})")
        lines.append(f"| {choice} | " + " | ".join(texts) + " |")
    moved = frame.assign(moved=frame["moved"].abs())
    largest = moved.loc[moved.groupby("choice", sort=False)["moved"].idxmax()]
    lines += ["", "What each moves most:", ""]
    lines += [
        f"- {line.choice}: {line.table}, {line.row} × {line.column}, "
        f"{line.as_configured:.4g} → {line.value:.4g} {line.unit}"
        for line in largest.itertuples()
        if line.moved
    ]
    return "\n".join([*lines, ""])


def main(argv=None) -> int:
    return run(body, "scripts.compare_ablations", ("cells",), argv)


if __name__ == "__main__":
    raise SystemExit(main())
