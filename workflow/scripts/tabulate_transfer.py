"""Tabulate the error of every network on the images distorted for each network (Tables 2 and 4)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from blindspots.report.pages import VERDICT_NOTE, attack_note, write
from blindspots.report.paper import read_paper
from blindspots.report.tables import CellArray, Table, by_replicate
from blindspots.steps import artifacts
from blindspots.steps.step import Step, log, run


def body(step: Step) -> None:
    """Make the table and write its four files.

    Args:
        step: The run. Its inputs are `evaluation`, `distorted`, `refined` and `paper`. Its settings are
            `table`, `columns` (the networks), `rows`, `measured` (names of the rows whose distortion is
            measured), `examples`, `average_distortion`, `attack`, `replicates` and `comparable`.
    """
    settings = step.settings
    table = Table(settings["table"], read_paper(step.inputs["paper"]), settings["comparable"])
    evaluations = step.inputs["evaluation"]
    distorted = by_replicate(step.inputs["distorted"], settings["measured"])
    refined = by_replicate(step.inputs["refined"], settings["columns"])
    cells, labels, failures = [], {}, {}
    for row in settings["rows"]:
        name = row["name"]
        labels[name] = _label(row, distorted, settings["examples"], refined)
        failures[name] = _failures(evaluations, name)
        for column in settings["columns"]:
            sources = [CellArray(path, f"misclassified/{name}/{column}") for path in evaluations]
            comparable = not failures[name] and _amplified_alike(row, table.paper.get((name, column)))
            cells.append(table.rate(name, column, sources, comparable))
        if settings["average_distortion"]:
            sources = [CellArray(path, "distortion") for path in distorted[name]]
            cells.append(table.mean(name, "distortion", "rms", sources, comparable=not failures[name]))

    missed = ", ".join(f"{count} of {name}" for name, count in failures.items() if count)
    notes = [
        attack_note(settings),
        f"Images for which no adversarial example was found, and which no rate counts: {missed or 'none'}.",
        VERDICT_NOTE,
    ]
    title = f"{table.name}: error of each network (column) on the images distorted for each (row)"
    column_labels = {"distortion": "Av. distortion"}
    write(step.output, title, cells, row_labels=labels, column_labels=column_labels, notes=notes)
    log.info("wrote %s", step.output[0])


def _failures(evaluations: Sequence[Path], row: str) -> int:
    """The number of a row's images without an adversarial example, summed over the files."""
    count = 0
    for path in evaluations:
        with artifacts.read(path) as file:
            count += int(file[f"failures/{row}"][()])
    return count


def _amplified_alike(row: dict, number) -> bool:
    """Whether the row's distortions are amplified to the paper's standard deviation, if there is one."""
    return row["network"] is None or number is None or number.amplified_to == row["stddev"]


def _label(row: dict, distorted: dict[str, list[Path]], examples: str, refined: dict[str, list[Path]]) -> str:
    if row["network"] is None:
        if row["stddev"] == 0:
            return "Undistorted"
        return f"Gaussian noise, stddev = {row['stddev']:g}"
    row_of = f"Distorted for {row['network']}" + (", refined" if examples == "refined" else "")
    if row["stddev"] is not None:
        return f"{row_of}, amplified to stddev = {row['stddev']:g}"
    nearer = "" if examples == "refined" else f", refined {_mean_distortion(refined[row['network']]):.4f}"
    return f"{row_of} (av. stddev = {_mean_distortion(distorted[row['name']]):.4f}{nearer})"


def _mean_distortion(paths: Sequence[Path]) -> float:
    return np.mean([CellArray(path, "distortion").values().mean() for path in paths])


def main(argv=None) -> int:
    return run(body, "scripts.tabulate_transfer", ("evaluation", "distorted", "refined", "paper"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
