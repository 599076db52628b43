"""Section 3: the images that maximise ⟨φ(x), e_i⟩ (units) or ⟨φ(x), v⟩ (random directions), and how alike they are.

A row holds the images with the largest inner product with one direction, as indices into the image set.
"""

import numpy as np
import torch
from scipy.spatial.distance import pdist
from torch import Tensor, nn

from blindspots.networks.architectures import weight_layers

LAST_HIDDEN = "last_hidden"  # what goes into the last layer that carries weights
SAMPLE = 10_000  # vectors over all pairs of which a mean distance is taken; a larger set is sampled
_BLOCK = 500  # directions, or vectors, whose products with a whole set are in memory at once


@torch.no_grad()
def features(network: nn.Module, images: Tensor, layer: str = LAST_HIDDEN, batch: int = 1000) -> Tensor:
    """φ(x): what a layer of the network, in evaluation mode, makes of (n, ...) images, flattened: (n, d).

    layer: `last_hidden`, or the dotted name of a module, for its output.

    Raises ValueError without images, for any other name, and for a module that the network does not use just once an image.
    """
    if not len(images):
        raise ValueError("there are no images")
    modules = {name: module for name, module in network.named_modules() if name}
    if layer != LAST_HIDDEN and layer not in modules:
        raise ValueError(f"there is no layer {layer}: the network has {', '.join([LAST_HIDDEN, *modules])}")
    seen: list[Tensor] = []

    def keep(value: Tensor) -> None:
        seen.append(value.flatten(1).to(images.device, copy=True))  # a copy: the next layer may work in place

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
            if values is None:  # in one piece from the start: two copies of AlexNet's would be gigabytes
                values = seen[0].new_empty(len(images), seen[0].shape[1])
            values[start : start + len(part)] = seen.pop()
    finally:
        hook.remove()
    return values


def random_directions(d: int, count: int, seed: int) -> np.ndarray:
    """Unit vectors v, uniform over the sphere: (d, count) float64, a column each."""
    gaussian = (
        np.random.default_rng(seed).standard_normal((count, d)).T
    )  # more of them begin with the same ones
    return gaussian / np.linalg.norm(gaussian, axis=0)


def rotation(d: int, seed: int) -> np.ndarray:
    """A random orthonormal basis, uniform over the orthogonal group (Haar): (d, d) float64, a column each."""
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))
    return q * np.sign(np.diag(r))  # without, q would depend on the convention of LAPACK and not be uniform


def largest(features: Tensor, directions: np.ndarray | None, top: int) -> np.ndarray:
    """The images with the largest inner products with each direction: (m, top) int64, largest first.

    features: (n, d); directions: (d, m), or None for the d units. Images that tie are in the order of the set.

    Raises ValueError if there are fewer images than `top`.
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
    """The units whose `top` largest images exceed others, so that ties alone do not make the row: (d,) bool.

    With one, those that are not the same for all images.
    """
    return (features.topk(top, dim=0).values[-1] > features.amin(0)).cpu().numpy()


def purity(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The share of each row's images that have the row's most common label: (m,), of labels (n,) and rows (m, top)."""
    shown = labels[rows]
    return (shown[:, :, None] == shown[:, None, :]).sum(2).max(1) / rows.shape[1]


def spread(vectors: np.ndarray, rows: np.ndarray, seed: int = 0) -> np.ndarray:
    """How unlike the images of each row are, as a multiple of how unlike the images of the set are: (m,).

    The mean Euclidean distance of the pairs in a row (m, top), over that of all pairs of the vectors (n, p): 0 for the same
    image again and again, 1 on average for images drawn at random. The latter is exact up to SAMPLE vectors; of more, it is
    that of all pairs of SAMPLE vectors drawn by the seed. NaN for rows of one image, and if all vectors are the same.
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
    """The mean Euclidean distance over all pairs of (n, p) vectors, from their products, which is a fast way."""
    vectors = (
        vectors.astype(np.float64) - vectors[0]
    )  # the products of a common offset would drown the differences
    squares = np.square(vectors).sum(axis=1)
    total = 0.0
    for start in range(0, len(vectors), _BLOCK):
        part = slice(start, start + _BLOCK)
        distances = squares[part, None] + squares[start:] - 2 * vectors[part] @ vectors[start:].T
        total += np.sqrt(np.triu(distances, 1).clip(0)).sum()  # each pair once
    return total / (len(vectors) * (len(vectors) - 1) / 2)
