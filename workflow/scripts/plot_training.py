"""Draw loss, gradient and training error of every network against the cost of its training so far."""

import json

from blindspots.report import figures
from blindspots.steps import artifacts
from blindspots.steps.step import Step, log, run


def body(step: Step) -> None:
    """Draw the figure and save it.

    Args:
        step: The run. Its input is `networks`. Its setting is `networks`, their names.
    """
    histories, tolerance = {}, None
    for name, path in zip(step.settings["networks"], step.inputs["networks"], strict=True):
        with artifacts.read(path) as file:
            tolerance = json.loads(file.attrs["settings"])["training"].get("gradient_tolerance", tolerance)
            histories[name] = {key: values[()] for key, values in file["history"].items()}
    figures.save(figures.training_curves(histories, tolerance), step.output[0])
    log.info("wrote %s", step.output[0])


def main(argv=None) -> int:
    return run(body, "scripts.plot_training", ("networks",), argv)


if __name__ == "__main__":
    raise SystemExit(main())
