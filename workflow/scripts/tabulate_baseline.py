"""Tabulate the errors on undistorted images and the average minimum distortion of every network.

These are the paper's Tables 1 and 3.
"""

from pathlib import Path

import h5py
import numpy as np

from blindspots.report.pages import REFINED_NOTE, VERDICT_NOTE, attack_note, write
from blindspots.report.paper import read_paper
from blindspots.report.tables import CellArray, Table, by_replicate
from blindspots.steps import artifacts
from blindspots.steps.step import Step, log, run


def body(step: Step) -> None:
    """Make the table and write its four files.

    Args:
        step: The run. Its inputs are `originals`, `adversarial`, `refined`, `exact`, `networks` and `paper`.
            All but `paper` have the files of one seed, then those of the next. Its settings are `table`,
            `columns` (the networks), `linear` (those with an exact minimum), `errors_on`, `refined_to`,
            `attack`, `replicates` and `comparable`.
    """
    settings = step.settings
    networks = settings["columns"]
    table = Table(settings["table"], read_paper(step.inputs["paper"]), settings["comparable"])
    originals = step.inputs["originals"]
    adversarial, refined, trained = (
        by_replicate(step.inputs[role], networks) for role in ("adversarial", "refined", "networks")
    )
    exact = by_replicate(step.inputs["exact"], settings["linear"])
    cells, notes = [], []
    for network in networks:
        for part in settings["errors_on"]:
            sources = [CellArray(path, f"misclassified/{part}/{network}") for path in originals]
            cells.append(table.rate(network, f"error_{part}", sources))
        complete = all(_complete(path) for path in adversarial[network])
        cells.append(table.mean(network, "distortion", "rms", _distortions(adversarial[network]), complete))
        notes += [
            f"{network}: {_outcome(path, settings['attack']['target'])}" for path in adversarial[network]
        ]
    for network in networks:
        cells.append(table.mean(network, "refined", "rms", _distortions(refined[network]), comparable=False))
        notes += [
            f"{network}, refined: {_optimality(path, settings['refined_to'][network])}"
            for path in refined[network]
        ]
    for network in settings["linear"]:
        cells.append(table.mean(network, "exact", "rms", _distortions(exact[network]), comparable=False))
    for network in networks:
        for path in trained[network]:
            with artifacts.read(path) as file:
                if not file["converged"][()]:
                    notes.append(f"{network} was not trained to convergence: {_ended(file)}.")

    labels = {f"error_{part}": f"Error on {part}" for part in settings["errors_on"]}
    labels |= {"distortion": "Min. av. distortion", "refined": "Refined", "exact": "Exact"}
    title = f"{table.name}: the networks and their minimum distortions"
    notes = [attack_note(settings), REFINED_NOTE, *notes, VERDICT_NOTE]
    write(step.output, title, cells, row_labels={}, column_labels=labels, notes=notes)
    log.info("wrote %s", step.output[0])


def _distortions(paths: list[Path]) -> list[CellArray]:
    return [CellArray(path, "distortion") for path in paths]


def _complete(path: Path) -> bool:
    with artifacts.read(path) as file:
        return bool(file["success"][()].all())


def _optimality(path: Path, tolerance: float) -> str:
    """How many refined examples of a file satisfy the optimality conditions, and their median residual."""
    with artifacts.read(path) as file:
        success, status, residual = (file[name][()] for name in ("success", "status", "residual"))
        codes = h5py.check_enum_dtype(file["status"].dtype)
    converged = (status == codes["converged"]) & success
    return (
        f"{converged.sum()} of {success.sum()} satisfy the optimality conditions "
        f"to {tolerance:g} of the distortion; the median residual is {np.nanmedian(residual):.1g}."
    )


def _outcome(path: Path, target: str) -> str:
    """What an attack found: its successes, images misclassified before it, and how the searches ended."""
    with artifacts.read(path) as file:
        success, status = file["success"][()], file["status"][()]
        misclassified = file["predicted"][()] != file["labels"][()]
        led_back = misclassified & (file["target"][()] == file["labels"][()])
        codes = h5py.check_enum_dtype(file["status"].dtype)
    note = (
        f"an adversarial example was found for {success.sum()} of {len(success)} images; "
        f"{misclassified.sum()} were misclassified before any distortion"
    )
    if target != "given":
        nothing_else = "their label as target, the other one of two classes"
        another = "a target that is neither their label nor the network's answer"
        note += f" and got {nothing_else if led_back.any() else another}"
    for text, code in codes.items():
        count = int(((status == code) & success).sum())
        if count and text != "converged":
            note += f"; {count} {text}"
    return note + "."


def _ended(network: h5py.File) -> str:
    """Why and where the network's training ended, if its file has this."""
    why = network["converged"].attrs["meaning"].strip(" :")
    if "gradient_max" not in network["history"]:  # the network was trained in minibatches
        return why
    return f"{why}, where no component of the gradient exceeds {network['history/gradient_max'][-1]:.1e}"


def main(argv=None) -> int:
    return run(
        body,
        "scripts.tabulate_baseline",
        ("originals", "adversarial", "refined", "exact", "networks", "paper"),
        argv,
    )


if __name__ == "__main__":
    raise SystemExit(main())
