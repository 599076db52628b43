"""Adversarial examples in the one layout that all programs use, whatever method made them."""

import h5py
import numpy as np
import torch
from torch import nn

from blindspots.attack.core import STATUS, Adversarial
from blindspots.attack.outcome import outcome
from blindspots.networks.evaluation import classify
from blindspots.steps.artifacts import Array
from blindspots.steps.image_sets import Images
from blindspots.steps.step import log

_STATUSES = h5py.enum_dtype({text: code for code, text in STATUS.items()}, basetype=np.uint8)


PRECISIONS = {"single": torch.float32, "double": torch.float64}  # of an attack's computations


def example_arrays(
    network: nn.Module, image_set: str, index: np.ndarray, originals: Images, result: Adversarial
) -> dict[str, Array]:
    """Build the arrays of an artifact with adversarial examples, and log a summary.

    The success and the distortion are measured here, on the images as they are stored. They are not taken
    from the attack's own records.

    Args:
        network: The network that the examples were made for.
        image_set: The name of the image set.
        index: The places of the images in the set, (n,).
        originals: The undistorted images and their labels, n of them.
        result: The result of the attack, n examples.
    Returns:
        The arrays by name, each with its meaning. The first axis of all of them is n.
    """
    images = result.images.float()
    x = torch.from_numpy(originals.pixels).to(images.device)
    success, size = (values.cpu().numpy() for values in outcome(network, x, images, result.targets))
    predicted = classify(network, x).cpu().numpy()
    log.info(
        "found %d of %d, mean distortion %.4f, %.1f gradient evaluations an image; "
        "%d images were misclassified before",
        success.sum(),
        len(success),
        size[success].mean() if success.any() else np.nan,
        result.gradient_evaluations.double().mean(),
        (predicted != originals.labels).sum(),
    )
    return {
        "index": Array(index, f"(n,) places in the {image_set} set"),
        "labels": Array(originals.labels, "(n,) classes"),
        "predicted": Array(predicted.astype(np.uint16), "(n,) what the network says of the original"),
        "target": Array(_numpy(result.targets, np.uint16), "(n,) the target class l"),
        "images": Array(
            images.cpu(), "(n, ...) pixels of x + r in [0, 1], the original where none was found"
        ),
        "success": Array(success, "(n,) the network calls x + r the target"),
        "distortion": Array(size, "(n,) root mean square of r, NaN where none was found"),
        "residual": Array(
            result.residual.cpu(), "(n,) how far from optimal, 0 at a minimum (see the settings' method)"
        ),
        "gradient_evaluations": Array(result.gradient_evaluations.cpu(), "(n,)"),
        "status": Array(
            _numpy(result.status, np.uint8).astype(_STATUSES), "(n,) how the search ended, an enumeration"
        ),
    }


def _numpy(values: torch.Tensor, kind: type) -> np.ndarray:
    return values.cpu().numpy().astype(kind)
