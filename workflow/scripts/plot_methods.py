"""Draw the test error in the course of training, for networks trained by different methods and seeds."""

import json

import numpy as np

from blindspots.report import figures
from blindspots.report.paper import read_paper
from blindspots.report.tables import by_replicate
from blindspots.steps import artifacts
from blindspots.steps.step import Step, log, run


def body(step: Step) -> None:
    """Draw the figure and save it.

    Args:
        step: The run. Its inputs are `networks` (all networks of one seed, then those of the next) and
            `paper`. Its settings are `table`, `networks` (names), `comparable` and `replicates`.
    """
    settings = step.settings
    panels: dict[str, dict[str, figures.Errors]] = {}
    for name, paths in by_replicate(step.inputs["networks"], settings["networks"]).items():
        errors = []
        for path in paths:
            with artifacts.read(path) as file:
                errors.append(file["history/error_test"][()])
                epochs = file["history/evaluations"][()]
                activation = json.loads(file.attrs["settings"])["network"]["activation"]
        panels.setdefault(activation, {})[name] = figures.Errors(epochs, np.stack(errors))
    paper = read_paper(step.inputs["paper"]) if settings["comparable"] else {}
    printed = {row: number.printed for (row, column), number in paper.items() if column == "error_test"}
    count = settings["replicates"]
    trainings = f"{count} trainings of each network" if count > 1 else "one training of each network"
    title = f"{settings['table']}: error on the test images, {trainings}"
    figures.save(figures.errors_by_epoch(panels, printed, title), step.output[0])
    log.info("wrote %s", step.output[0])


def main(argv=None) -> int:
    return run(body, "scripts.plot_methods", ("networks", "paper"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
