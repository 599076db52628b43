"""Amplify every adversarial distortion to one standard deviation: x + stddev (x' - x) / ‖x' - x‖."""

from blindspots.data import distortions
from blindspots.steps import artifacts, image_sets
from blindspots.steps.artifacts import Dataset
from blindspots.steps.step import Step, run


def body(step: Step) -> None:
    with artifacts.read(step.input("adversarial")) as file:
        index, success, images = file["index"][()], file["success"][()], file["images"][()]
    originals, labels = image_sets.read(step.input("data"), step.settings["images"], index)
    amplified = distortions.amplify(originals, images, step.settings["stddev"], step.settings["clip"])
    step.write(
        {
            "index": Dataset(index, f"(n,) places in the {step.settings['images']} set"),
            "labels": Dataset(labels, "(n,) classes"),
            "images": Dataset(amplified, "(n, height, width) amplified images"),
            "success": Dataset(success, "(n,) there was an adversarial example to amplify"),
            "distortion": Dataset(distortions.distortion(originals, amplified), "(n,) root mean square"),
        }
    )


def main(argv=None) -> int:
    return run(body, "scripts.amplify", ("data", "adversarial"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
