"""Tabulate the frame bounds of every linear map (Table 5).

Beside them stands the instability that adversarial examples reach.
"""

import re

from blindspots.report.pages import write
from blindspots.report.paper import read_paper
from blindspots.report.tables import CellArray, Table
from blindspots.steps import artifacts
from blindspots.steps.step import Step, log, run

COLUMNS = {
    "lower": "Lower bound",
    "upper": "Upper bound",
    "norm": "As padded",
    "lipschitz": "Lipschitz constant to here, at most",
    "instability": "Largest ‖Δφ‖/‖r‖ found",
}
NOTES = (
    "Lower and upper bound are the lowest and the largest singular value of the linear map; "
    "of a convolution those of the same with circular padding, by the Fourier transform of its kernel "
    "(Section 4.3), on a grid large enough for the upper one to bound the map with zeros around it, too. "
    "*As padded* is the norm of that map itself, by Lanczos iteration, which comes to it from below.",
    "The Lipschitz constant bounds ‖φ(x + r) - φ(x)‖/‖r‖ from the pixels to the map's output, "
    "for every x and r: it is the product of the upper bounds and of what stands between the maps "
    "(sigmoids ¼; pooling whose windows overlap more than 1; where a block's input is added to its output, "
    "the sum of both). The last column is the largest that was found.",
    "The paper's network is Krizhevsky's AlexNet, whose weights are not public. "
    "Its numbers stand beside torchvision's variant of it, which has other widths, and are not compared.",
)


def body(step: Step) -> None:
    """Make the table and write its four files.

    Args:
        step: The run. Its inputs are `spectra` (one file for each network) and `paper`. Its settings are
            `table`, `networks`, `examples` (the kind of adversarial examples) and `comparable`.
    """
    settings = step.settings
    table = Table(settings["table"], read_paper(step.inputs["paper"]), settings["comparable"])
    cells, labels, sizes, notes = [], {}, {}, []
    for network, path in zip(settings["networks"], step.inputs["spectra"], strict=True):
        with artifacts.read(path) as file:
            keys = sorted(file, key=_place)
            described = {
                key: (file[f"{key}/size"][()].decode(), float(file[f"{key}/residual"][()])) for key in keys
            }
            images = len(file[f"{keys[0]}/instability"])
        for key, (size, _) in described.items():
            row = f"{network}_{key}"
            labels[row], sizes[row] = f"{network}, {_label(key)}", size
            for column in COLUMNS:
                source = CellArray(path, f"{key}/{column}")
                cells.append(
                    table.largest(row, column, source)
                    if column == "instability"
                    else table.number(row, column, source)
                )
        worst = max(residual for _, residual in described.values())
        notes.append(
            f"{network}: {images} {settings['examples']} examples; "
            f"the norms' residuals are {worst:.1e} at most."
        )
    title = f"{table.name}: frame bounds of the linear maps of {', '.join(settings['networks'])}"
    write(
        step.output,
        title,
        cells,
        row_labels=labels,
        column_labels=COLUMNS,
        notes=[*notes, *NOTES],
        leading={"Size": sizes},
    )
    log.info("wrote %s", step.output[0])


def _place(key: str) -> tuple[bool, int]:
    """A sorting key: fully connected layers come last, and layers of a kind by their numbers."""
    kind, number = re.fullmatch(r"(\w+)_(\d+)", key).groups()
    return kind == "fc", int(number)


def _label(key: str) -> str:
    """The layer's name in the table, such as "Conv. 1" or "FC. 2"."""
    kind, _, number = key.partition("_")
    return f"{kind.upper() if kind == 'fc' else kind.capitalize()}. {number}"


def main(argv=None) -> int:
    return run(body, "scripts.tabulate_spectra", ("spectra", "paper"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
