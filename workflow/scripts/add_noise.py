"""Distort the images of a shard by Gaussian noise.

The noise of an image does not depend on how the image set is cut into shards.
"""

import numpy as np

from blindspots.data import distortions
from blindspots.steps import image_sets
from blindspots.steps.artifacts import Array
from blindspots.steps.step import Step, run


def body(step: Step) -> None:
    """Add the noise to the shard's images and write the artifact.

    Args:
        step: The run. Its input is `data`. Its settings are `images` (the set), `sample`, `shard`, `stddev`,
            `seed` and `clip`.
    Raises:
        StepError: If the sample has fewer images than shards.
    """
    settings = step.settings
    labels = image_sets.read_labels(step.input("data"), settings["images"])
    sample = image_sets.sample(len(labels), **settings["sample"])
    originals, _ = image_sets.read(step.input("data"), settings["images"], sample)
    noisy = distortions.add_noise(originals, settings["stddev"], settings["seed"], settings["clip"])
    index, originals, noisy = (
        image_sets.shard(values, settings["shard"]) for values in (sample, originals, noisy)
    )
    step.write(
        {
            "index": Array(index, f"(n,) places in the {settings['images']} set"),
            "labels": Array(labels[index], "(n,) classes"),
            "images": Array(noisy, "(n, ...) pixels of noisy images"),
            "success": Array(np.ones(len(index), dtype=bool), "(n,) always: noise needs no search"),
            "distortion": Array(distortions.distortion(originals, noisy), "(n,) root mean square"),
        }
    )


def main(argv=None) -> int:
    return run(body, "scripts.add_noise", ("data",), argv)


if __name__ == "__main__":
    raise SystemExit(main())
