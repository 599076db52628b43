"""Tabulate the errors of networks trained by different methods, compared with baselines.

Each network is trained from several seeds.
"""

from collections.abc import Sequence

import numpy as np

from blindspots.analysis.statistics import difference
from blindspots.report.pages import VERDICT_NOTE, write
from blindspots.report.paper import read_paper
from blindspots.report.tables import CellArray, Table, by_replicate
from blindspots.steps import artifacts
from blindspots.steps.step import Step, log, run

ONE_TRAINING = (
    "Each number is of one training of a network, so that there is no test of whether two networks differ."
)


def body(step: Step) -> None:
    """Make the table and write its four files.

    Args:
        step: The run. Its inputs are `originals`, `networks` and `paper`. Its settings are `table`, `columns`
            (the networks), `baselines`, `errors_on`, `replicates` and `comparable`.
    """
    settings = step.settings
    networks, baselines = settings["columns"], settings["baselines"]
    table = Table(settings["table"], read_paper(step.inputs["paper"]), settings["comparable"])
    trained = by_replicate(step.inputs["networks"], networks)
    last = settings["errors_on"][-1]
    cells, notes = [], []

    def sources(network: str, part: str) -> list[CellArray]:
        return [CellArray(path, f"misclassified/{part}/{network}") for path in step.inputs["originals"]]

    def rates(network: str) -> list[float]:
        return [source.values().mean() for source in sources(network, last)]

    for network in networks:
        for part in settings["errors_on"]:
            cells.append(table.rate(network, f"error_{part}", sources(network, part)))
        tests = [
            (baseline, difference(rates(network), rates(baseline)).p)
            for baseline in baselines
            if baseline != network
        ]
        with artifacts.read(trained[network][0]) as file:
            how = file["converged"].attrs["meaning"]
        tested = [f"against {baseline} p = {p:.2g}" for baseline, p in tests if not np.isnan(p)]
        notes.append(f"{network}: {'; '.join([how, *tested])}.")
    for baseline in baselines:  # each baseline has a column, in the order of the settings
        for network in networks:
            if network != baseline:
                ones, others = (sources(name, last) for name in (network, baseline))
                cells.append(table.difference(network, f"less_{baseline}", ones, others))

    labels = {f"error_{part}": f"Error on {part}" for part in settings["errors_on"]}
    labels |= {f"less_{name}": f"Less {name}" for name in baselines}
    title = f"{table.name}: the errors of networks trained in different ways"
    notes = [*_reading(settings["replicates"], last, baselines), *notes, VERDICT_NOTE]
    write(step.output, title, cells, row_labels={}, column_labels=labels, notes=notes)
    log.info("wrote %s", step.output[0])


def _reading(trainings: int, part: str, baselines: Sequence[str]) -> list[str]:
    """Notes that explain how to read the table."""
    if trainings == 1:
        means, intervals = ONE_TRAINING, ""
    else:
        means = (
            f"Each number is a mean over {trainings} trainings of the network from different seeds, "
            "± the standard deviation over them; beside an error stands the interval of sampling the images."
        )
        intervals = (
            ", with the 95 % interval of training both again from other seeds (all are tested on the "
            "same images); it and the p values are Welch's, two-sided, each for itself: "
            "of many, some are small by chance"
        )
    less = f"*Less X* is the mean error on the {part} set less that of X, in points of a percent{intervals}."
    return [means, *([less] if baselines else []), "The errors are those at the end of training."]


def main(argv=None) -> int:
    return run(body, "scripts.tabulate_methods", ("originals", "networks", "paper"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
