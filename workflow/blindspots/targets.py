"""The target l of D(x, l), which the paper leaves open: one class for each image, never its label nor what the network says.

An image whose prediction is its label already is misclassified; leaving that class out too keeps its D(x, l) from being
x itself.
"""

import torch
from torch import Tensor


def random_targets(labels: Tensor, predicted: Tensor, classes: int, seed: int) -> Tensor:
    """A uniformly random class among the others, (b,).

    Each image's order of preference depends on the seed and its place alone, so two networks get the same targets but for
    images that one of them misclassifies.
    """
    scores = torch.rand(len(labels), classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return _likeliest(_without(scores.to(labels.device), labels, predicted))


def second_targets(logits: Tensor, labels: Tensor) -> Tensor:
    """The most likely class of (b, k) logits among the others, (b,)."""
    return _likeliest(_without(logits, labels, logits.argmax(1)))


def other_classes(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """(b, k) bool: the classes that may be a target, over all of which `nearest` takes the smallest distortion."""
    return _without(torch.zeros(len(labels), classes, device=labels.device), labels, predicted) == 0


def _without(scores: Tensor, labels: Tensor, predicted: Tensor) -> Tensor:
    return scores.scatter(1, torch.stack([labels, predicted], dim=1), -torch.inf)


def _likeliest(scores: Tensor) -> Tensor:
    if scores.isneginf().all(dim=1).any():
        raise ValueError(f"no class of {scores.shape[1]} is left as a target beside the label and the prediction")
    return scores.argmax(1)
