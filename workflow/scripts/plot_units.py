"""Rows of the images that have most of a unit, and of a random direction (the paper's Figures 1 to 4)."""

import numpy as np

from blindspots import artifacts, datasets, figures
from blindspots.step import Step, log, run

WORDS = {"units": "most stimulate single units", "directions": "most stimulate random directions"}


def body(step: Step) -> None:
    settings = step.settings
    kind = settings["kind"]
    with artifacts.read(step.input("units")) as file:
        rows, purity = file[f"trained/{kind}/rows"][()], file[f"trained/{kind}/purity"][()]
    count = min(settings["shown"], len(rows))
    chosen = np.sort(np.random.default_rng(settings["seed"]).choice(len(rows), count, replace=False))
    shown = {}
    for place in chosen:
        shown[str(place)], _ = datasets.read(step.input("data"), settings["images"], rows[place])
    title = (
        f"{settings['network']}, {settings['layer'].replace('_', ' ')} layer: images of the {settings['images']} set that "
        f"{WORDS[kind]}\n{rows.shape[1]} for each of {count} out of {len(rows)}; mean purity of all rows {purity.mean():.2f}"
    )
    figures.save(figures.image_rows(shown, title), step.output[0])
    log.info("wrote %s", step.output[0])


def main(argv=None) -> int:
    return run(body, "scripts.plot_units", ("data", "units"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
