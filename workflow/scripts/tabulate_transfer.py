"""The error of every network on the images distorted for each network (the paper's Tables 2 and 4)."""

from pathlib import Path

import numpy as np

from blindspots import artifacts
from blindspots.step import Step, log, run
from blindspots.tables import VERDICT_NOTE, Table, attack_note, read_paper, write


def body(step: Step) -> None:
    settings = step.settings
    table = Table(settings["table"], read_paper(step.inputs["paper"]), settings["comparable"])
    evaluation = step.input("evaluation")
    refined = dict(zip(settings["columns"], step.inputs["refined"], strict=True))
    cells, labels, failures, notes = [], {}, {}, []
    with artifacts.read(evaluation) as file:
        for row, path in zip(settings["rows"], step.inputs["distorted"], strict=True):
            name = row["name"]
            labels[name] = _label(row, path, settings["examples"], refined)
            if row["network"] and row["stddev"] is None and not notes:
                with artifacts.read(path) as examples:
                    notes.append(attack_note(examples))
            failures[name] = int(file[f"failures/{name}"][()])
            for column in settings["columns"]:
                comparable = not failures[name] and _amplified_alike(row, table.paper.get((name, column)))
                cells.append(table.rate(name, column, evaluation, file, f"misclassified/{name}/{column}", comparable))
            if settings["average_distortion"]:
                with artifacts.read(path) as distorted:
                    found = not failures[name]
                    cells.append(table.mean(name, "distortion", "rms", path, distorted, "distortion", found))

    missed = ", ".join(f"{count} of {name}" for name, count in failures.items() if count)
    notes.append(f"Images for which no adversarial example was found, and which no rate counts: {missed or 'none'}.")
    title = f"{table.name}: error of each network (column) on the images distorted for each (row)"
    write(
        step.output,
        title,
        cells,
        row_labels=labels,
        column_labels={"distortion": "Av. distortion"},
        notes=[*notes, VERDICT_NOTE],
    )
    log.info("wrote %s", step.output[0])


def _amplified_alike(row: dict, number) -> bool:
    return row["network"] is None or number is None or number.amplified_to == row["stddev"]


def _label(row: dict, path: Path, examples: str, refined: dict[str, Path]) -> str:
    if row["network"] is None:
        return f"Gaussian noise, stddev = {row['stddev']:g}"
    row_of = f"Distorted for {row['network']}" + (", refined" if examples == "refined" else "")
    if row["stddev"] is not None:
        return f"{row_of}, amplified to stddev = {row['stddev']:g}"
    nearer = "" if examples == "refined" else f", refined {_mean_distortion(refined[row['network']]):.4f}"
    return f"{row_of} (av. stddev = {_mean_distortion(path):.4f}{nearer})"


def _mean_distortion(path: Path) -> float:
    with artifacts.read(path) as file:
        return np.nanmean(file["distortion"][()])


def main(argv=None) -> int:
    return run(body, "scripts.tabulate_transfer", ("evaluation", "distorted", "refined", "paper"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
