"""Errors on undistorted images and the average minimum distortion of every network (the paper's Tables 1 and 3)."""

from blindspots import artifacts
from blindspots.step import Step, log, run
from blindspots.tables import VERDICT_NOTE, Table, read_printed, write


def body(step: Step) -> None:
    settings = step.settings
    table = Table(settings["table"], read_printed(step.inputs["paper"]), settings["comparable"])
    originals = step.input("originals")
    cells, notes = [], []
    for network, path in zip(settings["networks"], step.inputs["adversarial"], strict=True):
        with artifacts.read(originals) as file:
            for part in settings["errors_on"]:
                cells.append(table.rate(network, f"error_{part}", originals, file, f"misclassified/{part}/{network}"))
        with artifacts.read(path) as file:
            cells.append(table.mean(network, "distortion", "rms", path, file, "distortion"))
            notes.append(_attack_note(network, file))

    labels = {f"error_{part}": f"Error on {part}" for part in settings["errors_on"]}
    labels["distortion"] = "Min. av. distortion"
    title = f"{table.name}: the networks and their minimum distortions"
    write(step.output, title, cells, row_labels={}, column_labels=labels, notes=[*notes, VERDICT_NOTE])
    log.info("wrote %s", step.output[0])


def _attack_note(network: str, file) -> str:
    success, misclassified = file["success"][()], (file["predicted"][()] != file["labels"][()])
    return (
        f"{network}: an adversarial example was found for {success.sum()} of {len(success)} images; "
        f"{misclassified.sum()} were misclassified before any distortion and got a target that is neither their label nor "
        "the network's answer."
    )


def main(argv=None) -> int:
    return run(body, "scripts.tabulate_baseline", ("originals", "adversarial", "paper"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
