"""Tabulate how alike the images are that stimulate a unit, or a random direction, most (Section 3)."""

from blindspots.analysis.statistics import probability_larger
from blindspots.report.pages import write
from blindspots.report.tables import CellArray, Table
from blindspots.steps import artifacts
from blindspots.steps.step import Step, log, run

MEASURES = {"purity": "Purity", "pixels": "Distance in pixels", "features": "Distance in the layer"}
KINDS = {"units": "units", "directions": "random directions", "rotation": "axes of a rotated space"}
NOTES = (
    "Each number is a mean over the rows: the images of the set that have most of one unit or direction. "
    "Purity is the share of the most common class among them; a distance is the mean over their pairs, "
    "as a multiple of that over all pairs of the set (1: as unlike as any). "
    "What an interval knows of is the choice of the units and directions.",
    "*Units against …* is the probability that the number of a unit is larger than that of a direction "
    "(½: they cannot be told apart), with its 95 % interval; the p values are Mann and Whitney's, two-sided.",
    "Untrained is the same network with the weights that training starts from, drawn anew.",
)


def body(step: Step) -> None:
    """Make the table and write its four files.

    Args:
        step: The run. Its input is `units`, one file for each section. Its settings are `table`, `names` (of
            the sections) and `of` (the sections).
    """
    settings = step.settings
    table = Table(settings["table"], {}, comparable=False)
    cells, labels, notes = [], {}, []
    for name, path in zip(settings["names"], step.inputs["units"], strict=True):
        section = settings["of"][name]
        with artifacts.read(path) as file:
            top = file["trained/units/rows"].shape[1]
        notes.append(
            f"{name}: {section['network']}, layer {section['layer']}, the {section['images']} set, "
            f"{top} images a row."
        )
        for state in ("trained", "untrained"):
            for kind, label in KINDS.items():
                row = f"{name}_{state}_{kind}"
                labels[row] = f"{section['network']}, {state}: {label}"
                for measure in MEASURES:
                    cells.append(table.average(row, measure, [CellArray(path, f"{state}/{kind}/{measure}")]))
            for other in ("directions", "rotation"):
                row = f"{name}_{state}_units_against_{other}"
                labels[row] = f"{section['network']}, {state}: units against {KINDS[other]}"
                tests = []
                for measure, said in MEASURES.items():
                    pair = [CellArray(path, f"{state}/{kind}/{measure}") for kind in ("units", other)]
                    cells.append(table.probability(row, measure, *pair))
                    tests.append(
                        f"{said.lower()} "
                        f"p = {probability_larger(*(source.values() for source in pair)).p:.2g}"
                    )
                notes.append(f"{labels[row]}: {', '.join(tests)}.")
    title = f"{table.name}: how alike the images are that have most of a unit or of a random direction"
    write(step.output, title, cells, row_labels=labels, column_labels=MEASURES, notes=[*notes, *NOTES])
    log.info("wrote %s", step.output[0])


def main(argv=None) -> int:
    return run(body, "scripts.tabulate_units", ("units",), argv)


if __name__ == "__main__":
    raise SystemExit(main())
