"""Rules that choose the target class l of D(x, l), which the paper does not specify (Section 4.1).

Each image gets one class, which is neither its label nor the class that the network predicts. For a
misclassified image these two differ. With the predicted class as the target, D(x, l) would be x itself. With
two classes, no class would then remain. There the label of a misclassified image is its target. D(x, l) is
then on the other side of the decision boundary for all images.
"""

import torch
from torch import Tensor


def random_targets(labels: Tensor, predicted: Tensor, classes: int, seed: int) -> Tensor:
    """Choose a uniformly random target among the other classes.

    Each image's order of preference depends only on the seed and on its place. Two networks therefore get the
    same targets, except for images that one of them misclassifies.

    Args:
        labels: The true classes, (b,), integers.
        predicted: The classes that the network predicts, (b,), integers.
        classes: The number of classes k.
        seed: The seed of the random numbers.
    Returns:
        The target classes, (b,), integers.
    """
    generator = torch.Generator("cpu").manual_seed(int(seed))
    scores = torch.rand(len(labels), classes, generator=generator, dtype=torch.float64, device="cpu")
    return _without(scores.to(labels.device), labels, predicted).argmax(1)


def second_targets(logits: Tensor, labels: Tensor) -> Tensor:
    """Choose the most likely of the other classes as the target.

    Args:
        logits: The network's logits, (b, k).
        labels: The true classes, (b,), integers.
    Returns:
        The target classes, (b,), integers.
    """
    return _without(logits, labels, logits.argmax(1)).argmax(1)


def other_classes(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Find the classes that may be a target.

    The policy "nearest" takes the smallest distortion over all of these classes.

    Args:
        labels: The true classes, (b,), integers.
        predicted: The classes that the network predicts, (b,), integers.
        classes: The number of classes k.
    Returns:
        Whether a class may be the target, (b, k), bool.
    """
    return _without(torch.zeros(len(labels), classes, device=labels.device), labels, predicted) == 0


def _without(scores: Tensor, labels: Tensor, predicted: Tensor) -> Tensor:
    left_out = [predicted] if scores.shape[1] == 2 else [labels, predicted]
    return scores.scatter(1, torch.stack(left_out, dim=1), -torch.inf)
