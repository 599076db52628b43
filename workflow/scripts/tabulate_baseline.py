"""Errors on undistorted images and the average minimum distortion of every network (the paper's Tables 1 and 3)."""

import json

import h5py
import numpy as np

from blindspots import artifacts
from blindspots.step import Step, log, run
from blindspots.tables import REFINED_NOTE, VERDICT_NOTE, Table, attack_note, read_paper, write


def body(step: Step) -> None:
    settings = step.settings
    table = Table(settings["table"], read_paper(step.inputs["paper"]), settings["comparable"])
    originals = step.input("originals")
    cells, notes = [], []
    for network, path in zip(settings["networks"], step.inputs["adversarial"], strict=True):
        with artifacts.read(originals) as file:
            for part in settings["errors_on"]:
                cells.append(table.rate(network, f"error_{part}", originals, file, f"misclassified/{part}/{network}"))
        with artifacts.read(path) as file:
            complete = bool(file["success"][()].all())
            cells.append(table.mean(network, "distortion", "rms", path, file, "distortion", complete))
            notes.append(f"{network}: {_outcome(file)}")
            how = attack_note(file)
    for network, path in zip(settings["networks"], step.inputs["refined"], strict=True):
        with artifacts.read(path) as file:
            cells.append(table.mean(network, "refined", "rms", path, file, "distortion", comparable=False))
            notes.append(f"{network}, refined: {_optimality(file)}")
    for network, path in zip(settings["linear"], step.inputs["exact"], strict=True):
        with artifacts.read(path) as file:
            cells.append(table.mean(network, "exact", "rms", path, file, "distortion", comparable=False))
    for network, path in zip(settings["networks"], step.inputs["networks"], strict=True):
        with artifacts.read(path) as file:
            if not file["converged"][()]:
                notes.append(f"{network} did NOT converge: {file['converged'].attrs['meaning']}.")

    labels = {f"error_{part}": f"Error on {part}" for part in settings["errors_on"]}
    labels |= {"distortion": "Min. av. distortion", "refined": "Refined", "exact": "Exact"}
    title = f"{table.name}: the networks and their minimum distortions"
    write(step.output, title, cells, row_labels={}, column_labels=labels, notes=[how, REFINED_NOTE, *notes, VERDICT_NOTE])
    log.info("wrote %s", step.output[0])


def _optimality(file) -> str:
    success, status, residual = (file[name][()] for name in ("success", "status", "residual"))
    codes = h5py.check_enum_dtype(file["status"].dtype)
    converged = (status == codes["converged"]) & success
    limit = json.loads(file.attrs["settings"])["sqp"]["tolerance"]
    return (
        f"{converged.sum()} of {success.sum()} satisfy the optimality conditions to {limit:g} of the distortion; "
        f"the median residual is {np.nanmedian(residual):.1g}."
    )


def _outcome(file) -> str:
    success, status = file["success"][()], file["status"][()]
    misclassified = file["predicted"][()] != file["labels"][()]
    target = json.loads(file.attrs["settings"])["target"]
    note = (
        f"an adversarial example was found for {success.sum()} of {len(success)} images; "
        f"{misclassified.sum()} were misclassified before any distortion"
    )
    if target != "given":
        note += " and got a target that is neither their label nor the network's answer"
    for text, code in h5py.check_enum_dtype(file["status"].dtype).items():
        count = int(((status == code) & success).sum())
        if count and text != "converged":
            note += f"; {count} {text}"
    return note + "."


def main(argv=None) -> int:
    return run(
        body, "scripts.tabulate_baseline", ("originals", "adversarial", "refined", "exact", "networks", "paper"), argv
    )


if __name__ == "__main__":
    raise SystemExit(main())
