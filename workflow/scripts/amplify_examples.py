"""Amplify every adversarial distortion to one standard deviation: x + stddev (x' - x) / ‖x' - x‖."""

from blindspots.data import distortions
from blindspots.steps import artifacts, image_sets
from blindspots.steps.artifacts import Array
from blindspots.steps.step import Step, run


def body(step: Step) -> None:
    """Amplify the adversarial examples of a file and write the artifact.

    Args:
        step: The run. Its inputs are `data` and `adversarial`. Its settings are `images` (the set), `stddev`
            and `clip`.
    """
    with artifacts.read(step.input("adversarial")) as file:
        index, success, images = file["index"][()], file["success"][()], file["images"][()]
    originals, labels = image_sets.read(step.input("data"), step.settings["images"], index)
    amplified = distortions.amplify(originals, images, step.settings["stddev"], step.settings["clip"])
    step.write(
        {
            "index": Array(index, f"(n,) places in the {step.settings['images']} set"),
            "labels": Array(labels, "(n,) classes"),
            "images": Array(amplified, "(n, height, width) amplified images"),
            "success": Array(success, "(n,) there was an adversarial example to amplify"),
            "distortion": Array(distortions.distortion(originals, amplified), "(n,) root mean square"),
        }
    )


def main(argv=None) -> int:
    return run(body, "scripts.amplify_examples", ("data", "adversarial"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
