"""The error of every network on the images distorted for each network (the paper's Tables 2 and 4)."""

import numpy as np

from blindspots import artifacts
from blindspots.step import Step, log, run
from blindspots.tables import VERDICT_NOTE, Table, read_printed, write


def body(step: Step) -> None:
    settings = step.settings
    table = Table(settings["table"], read_printed(step.inputs["paper"]), settings["comparable"])
    evaluation = step.input("evaluation")
    cells, labels, lost = [], {}, []
    with artifacts.read(evaluation) as file:
        for row, path in zip(settings["rows"], step.inputs["distorted"], strict=True):
            labels[row["name"]] = _label(row, path)
            lost.append((row["name"], int(file[f"failures/{row['name']}"][()])))
            for column in settings["columns"]:
                dataset = f"misclassified/{row['name']}/{column}"
                cells.append(table.rate(row["name"], column, evaluation, file, dataset))

    failures = ", ".join(f"{count} of {name}" for name, count in lost if count)
    note = f"Images for which no adversarial example was found, and which no rate counts: {failures or 'none'}."
    title = f"{table.name}: error of each network (column) on the images distorted for each (row)"
    write(step.output, title, cells, row_labels=labels, column_labels={}, notes=[note, VERDICT_NOTE])
    log.info("wrote %s", step.output[0])


def _label(row: dict, path) -> str:
    if row["network"] is None:
        return f"Gaussian noise, stddev = {row['stddev']:g}"
    if row["stddev"] is not None:
        return f"Distorted for {row['network']}, amplified to stddev = {row['stddev']:g}"
    with artifacts.read(path) as file:
        return f"Distorted for {row['network']} (av. stddev = {np.nanmean(file['distortion'][()]):.3f})"


def main(argv=None) -> int:
    return run(body, "scripts.tabulate_transfer", ("evaluation", "distorted", "paper"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
