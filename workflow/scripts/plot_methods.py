"""The test error after every epoch of networks that are trained in different ways, from several seeds."""

import json

import numpy as np

from blindspots import artifacts, figures
from blindspots.step import Step, log, run
from blindspots.tables import by_replicate


def body(step: Step) -> None:
    settings = step.settings
    panels: dict[str, dict[str, np.ndarray]] = {}
    for name, paths in by_replicate(step.inputs["networks"], settings["networks"]).items():
        errors = []
        for path in paths:
            with artifacts.read(path) as file:
                errors.append(file["history/error_test"][()])
                activation = json.loads(file.attrs["settings"])["network"]["activation"]
        panels.setdefault(activation, {})[name] = np.stack(errors)
    title = f"{settings['table']}: test error of MNIST networks, {settings['replicates']} trainings each"
    figures.save(figures.errors_by_epoch(panels, title), step.output[0])
    log.info("wrote %s", step.output[0])


def main(argv=None) -> int:
    return run(body, "scripts.plot_methods", ("networks",), argv)


if __name__ == "__main__":
    raise SystemExit(main())
