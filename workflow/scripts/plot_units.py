"""Draw the images that stimulate units, or random directions, most, a row for each (Figures 1 to 4)."""

import numpy as np

from blindspots.report import figures
from blindspots.steps import artifacts, image_sets
from blindspots.steps.step import Step, log, run

WORDS = {"units": ("unit", "units"), "directions": ("direction", "random directions")}


def body(step: Step) -> None:
    """Draw the figure and save it.

    Args:
        step: The run. Its inputs are `data` and `units`. Its settings are `network`, `layer`, `images` (the
            set), `kind` ("units" or "directions"), `shown` (the number of rows) and `seed`.
    """
    settings = step.settings
    kind = settings["kind"]
    with artifacts.read(step.input("units")) as file:
        rows = file[f"trained/{kind}/rows"][()]
    count = min(settings["shown"], len(rows))
    chosen = np.sort(np.random.default_rng(settings["seed"]).choice(len(rows), count, replace=False))
    shown = {}
    for place in chosen:
        shown[f"{WORDS[kind][0]} {place}"], _ = image_sets.read(
            step.input("data"), settings["images"], rows[place]
        )
    of = f"{settings['network']}, {settings['layer'].replace('_', ' ')} layer, {settings['images']} set"
    top = rows.shape[1]
    title = f"{of}: the {top} images that most stimulate each of {count} of {len(rows)} {WORDS[kind][1]}"
    figures.save(figures.image_rows(shown, title, columns=max(1, 10 // top)), step.output[0])
    log.info("wrote %s", step.output[0])


def main(argv=None) -> int:
    return run(body, "scripts.plot_units", ("data", "units"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
