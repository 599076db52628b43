"""The images that maximise a unit ⟨φ(x), e_i⟩ or a random direction ⟨φ(x), v⟩ (Section 3).

The module also measures how similar these images are.
A row holds the images with the largest inner product with one direction, as indices into the image set.
"""

import numpy as np
import torch
from scipy.spatial.distance import pdist
from torch import Tensor, nn

from blindspots.networks.architectures import weight_layers

LAST_HIDDEN = "last_hidden"  # the input of the last layer with weights
# The largest number of vectors for which a mean distance is taken over all pairs. A larger set is sampled.
SAMPLE = 10_000
_BLOCK = 500  # the number of directions or vectors whose products with a whole set are in memory at once


@torch.no_grad()
def features(network: nn.Module, images: Tensor, layer: str = LAST_HIDDEN, batch: int = 1000) -> Tensor:
    """Compute φ(x): the flattened output of a layer of the network in evaluation mode.

    Args:
        network: The network, in evaluation mode.
        images: The images, (n, ...).
        layer: `last_hidden` for the input of the last layer with weights.
            Otherwise the dotted name of a module, whose output is taken.
        batch: The number of images that are computed at once.
    Returns:
        The features, (n, d).
    Raises:
        ValueError: If there are no images, or if there is no such layer.
            Also if the network does not use the layer exactly once per image.
    """
    if not len(images):
        raise ValueError("there are no images")
    modules = {name: module for name, module in network.named_modules() if name}
    if layer != LAST_HIDDEN and layer not in modules:
        raise ValueError(f"there is no layer {layer}: the network has {', '.join([LAST_HIDDEN, *modules])}")
    seen: list[Tensor] = []

    def keep(value: Tensor) -> None:
        # A copy is needed, because the next layer may work in place.
        seen.append(value.flatten(1).to(images.device, copy=True))

    if layer == LAST_HIDDEN:
        hook = weight_layers(network)[-1].register_forward_pre_hook(lambda _, inputs: keep(inputs[0]))
    else:
        hook = modules[layer].register_forward_hook(lambda _, inputs, output: keep(output))
    values = None
    try:
        for start, part in zip(range(0, len(images), batch), images.split(batch), strict=True):
            network(part)
            if len(seen) != 1:
                raise ValueError(f"the network uses its layer {layer} {len(seen)} times an image, not once")
            if values is None:
                # One array is allocated from the start, because two copies of AlexNet's would take gigabytes.
                values = seen[0].new_empty(len(images), seen[0].shape[1])
            values[start : start + len(part)] = seen.pop()
    finally:
        hook.remove()
    return values


def random_directions(d: int, count: int, seed: int) -> np.ndarray:
    """Draw unit vectors v, uniform over the sphere.

    Args:
        d: The dimension.
        count: The number of vectors.
        seed: The seed.
    Returns:
        The vectors as columns, (d, count) float64.
    """
    # A larger number of vectors begins with the same vectors.
    gaussian = np.random.default_rng(seed).standard_normal((count, d)).T
    return gaussian / np.linalg.norm(gaussian, axis=0)


def rotation(d: int, seed: int) -> np.ndarray:
    """Draw a random orthonormal basis, uniform over the orthogonal group (Haar).

    Args:
        d: The dimension.
        seed: The seed.
    Returns:
        The basis vectors as columns, (d, d) float64.
    """
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))
    # Without these signs, q would depend on LAPACK's convention and would not be uniform.
    return q * np.sign(np.diag(r))


def largest(features: Tensor, directions: np.ndarray | None, top: int) -> np.ndarray:
    """Find the images with the largest inner products with each direction.

    Args:
        features: The features, (n, d).
        directions: The directions as columns, (d, m), or None for the d units.
        top: The number of images in a row.
    Returns:
        The indices of the images, (m, top) int64, largest first. Images that tie are in the order of the set.
    Raises:
        ValueError: If there are fewer images than `top`.
    """
    if len(features) < top:
        raise ValueError(f"there are {len(features)} images, fewer than the {top} of a row")
    rows = []
    for start in range(0, features.shape[1] if directions is None else directions.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        if directions is None:
            products = features[:, block]
        else:
            products = features @ torch.from_numpy(directions[:, block]).to(features)
        rows.append(products.T.sort(dim=1, descending=True, stable=True).indices[:, :top].cpu().numpy())
    return np.concatenate(rows)


def active_units(features: Tensor, top: int = 1) -> np.ndarray:
    """Find the units whose row does not depend on ties alone.

    The smallest of a unit's `top` largest values must exceed its smallest value over all images.
    With `top` = 1 these are the units whose values are not the same for all images.

    Args:
        features: The features, (n, d).
        top: The number of images in a row.
    Returns:
        Whether each unit is active, (d,) bool.
    """
    return (features.topk(top, dim=0).values[-1] > features.amin(0)).cpu().numpy()


def purity(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Compute the share of each row's images that have the row's most common label.

    Args:
        labels: The labels of the image set, (n,).
        rows: The indices of the images in each row, (m, top).
    Returns:
        The shares, (m,).
    """
    shown = labels[rows]
    return (shown[:, :, None] == shown[:, None, :]).sum(2).max(1) / rows.shape[1]


def spread(vectors: np.ndarray, rows: np.ndarray, seed: int = 0) -> np.ndarray:
    """Compute how different the images of each row are, relative to the images of the set.

    It is the mean Euclidean distance of the pairs in a row, divided by that of all pairs of vectors.
    It is 0 if a row repeats the same image. It is 1 on average for images drawn at random.
    The mean over all pairs of vectors is exact for up to `SAMPLE` vectors.
    Of more vectors, it is the mean over all pairs of `SAMPLE` random ones.

    Args:
        vectors: The vectors of the image set, (n, p).
        rows: The indices of the images in each row, (m, top).
        seed: The seed of the random sample.
    Returns:
        The relative distances, (m,). They are NaN for rows of one image, and if all vectors are the same.
    """
    whole = vectors
    if len(vectors) > SAMPLE:
        whole = vectors[np.sort(np.random.default_rng(seed).choice(len(vectors), SAMPLE, replace=False))]
    if rows.shape[1] < 2:
        return np.full(len(rows), np.nan)
    own = np.array([pdist(vectors[row]).mean() for row in rows])
    with np.errstate(invalid="ignore"):
        return own / _mean_distance(whole)


def _mean_distance(vectors: np.ndarray) -> float:
    """Return the mean Euclidean distance over all pairs of vectors (n, p).

    It is computed from the vectors' products, which is fast.
    """
    # A common offset is removed, because its products would swamp the differences.
    vectors = vectors.astype(np.float64) - vectors[0]
    squares = np.square(vectors).sum(axis=1)
    total = 0.0
    for start in range(0, len(vectors), _BLOCK):
        part = slice(start, start + _BLOCK)
        distances = squares[part, None] + squares[start:] - 2 * vectors[part] @ vectors[start:].T
        total += np.sqrt(np.triu(distances, 1).clip(0)).sum()  # counts each pair once
    return total / (len(vectors) * (len(vectors) - 1) / 2)
