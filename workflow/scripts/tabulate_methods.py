"""The errors of networks that are trained in different ways, each from several seeds, against those of baselines."""

from blindspots import artifacts
from blindspots.statistics import difference
from blindspots.step import Step, log, run
from blindspots.tables import VERDICT_NOTE, Source, Table, by_replicate, read_paper, write

DIFFERENCE_NOTE = (
    "*Less X* is the mean error less that of X, in points of a percent, with the 95 % interval of training both again from "
    "other seeds (Welch's); all trainings are tested on the same images. The errors are those at the end of training."
)


def body(step: Step) -> None:
    settings = step.settings
    networks, baselines = settings["columns"], settings["baselines"]
    table = Table(settings["table"], read_paper(step.inputs["paper"]), settings["comparable"])
    trained = by_replicate(step.inputs["networks"], networks)
    last = settings["errors_on"][-1]
    cells, notes = [], []

    def sources(network: str, part: str) -> list[Source]:
        return [Source(path, f"misclassified/{part}/{network}") for path in step.inputs["originals"]]

    for network in networks:
        for part in settings["errors_on"]:
            cells.append(table.rate(network, f"error_{part}", sources(network, part)))
        rates, tests = [source.values().mean() for source in sources(network, last)], []
        for baseline in baselines:
            if baseline == network:
                continue
            cells.append(table.difference(network, f"less_{baseline}", sources(network, last), sources(baseline, last)))
            p = difference(rates, [source.values().mean() for source in sources(baseline, last)]).p
            tests.append(f"against {baseline} p = {p:.2g}")
        with artifacts.read(trained[network][0]) as file:
            how = file["converged"].attrs["meaning"]
        notes.append(f"{network}: {'; '.join([how, *tests])}.")

    labels = {f"error_{part}": f"Error on {part}" for part in settings["errors_on"]}
    labels |= {f"less_{name}": f"Less {name}" for name in baselines}
    title = f"{table.name}: the errors of networks trained in different ways"
    seeds = (
        f"Each number is a mean over {settings['replicates']} trainings of the network, ± the standard deviation over them."
    )
    write(
        step.output,
        title,
        cells,
        row_labels={},
        column_labels=labels,
        notes=[seeds, DIFFERENCE_NOTE, *notes, VERDICT_NOTE],
    )
    log.info("wrote %s", step.output[0])


def main(argv=None) -> int:
    return run(body, "scripts.tabulate_methods", ("originals", "networks", "paper"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
