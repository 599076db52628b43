"""The target l of D(x, l), which the paper leaves open: one class for each image, never its label nor what the network says.

For a misclassified image, which the network takes for another class than its label, leaving that class out too keeps its
D(x, l) from being x itself. Of two classes none would then be left: there its label is its target, so that D(x, l) is the
way to the other side of the border for all images.
"""

import torch
from torch import Tensor


def random_targets(labels: Tensor, predicted: Tensor, classes: int, seed: int) -> Tensor:
    """A uniformly random class among the others, (b,).

    Each image's order of preference depends on the seed and its place alone, so two networks get the same targets but for
    images that one of them misclassifies.
    """
    generator = torch.Generator("cpu").manual_seed(int(seed))
    scores = torch.rand(len(labels), classes, generator=generator, dtype=torch.float64, device="cpu")
    return _without(scores.to(labels.device), labels, predicted).argmax(1)


def second_targets(logits: Tensor, labels: Tensor) -> Tensor:
    """The most likely class of (b, k) logits among the others, (b,)."""
    return _without(logits, labels, logits.argmax(1)).argmax(1)


def other_classes(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """(b, k) bool: the classes that may be a target, over all of which `nearest` takes the smallest distortion."""
    return _without(torch.zeros(len(labels), classes, device=labels.device), labels, predicted) == 0


def _without(scores: Tensor, labels: Tensor, predicted: Tensor) -> Tensor:
    left_out = [predicted] if scores.shape[1] == 2 else [labels, predicted]
    return scores.scatter(1, torch.stack(left_out, dim=1), -torch.inf)
