"""Training by full-batch L-BFGS until convergence, with the paper's quadratic weight decay."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from blindspots.networks import weight_layers

# loss_decay = λ Σ w² / (…), by the number k of units in the layer. The paper prints "per_unit".
DECAY_DIVISORS: dict[str, Callable[[int], float]] = {"half": lambda k: 2.0, "per_unit": float, "plain": lambda k: 1.0}


# The gradient is that of all images, added up over parts of this size; on a CPU such a part stays in the cache.
_PART = {"cpu": 1000, "cuda": 10_000}


class Iteration(NamedTuple):
    """The state after one L-BFGS iteration."""

    loss: float  # the total loss: mean cross-entropy plus decay
    gradient_norm: float  # ‖∇ total loss‖₂
    gradient_max: float  # its largest component, which convergence is judged by
    error: float  # fraction of the training images misclassified
    evaluations: int  # gradients computed so far


class Trained(NamedTuple):
    history: list[Iteration]
    converged: bool
    message: str


def decay(network: nn.Module, weights: Sequence[float], convention: str) -> Tensor:
    """loss_decay of Section 4.2: for each layer λ Σ w²/2 ("half"), λ Σ w²/k ("per_unit"), λ Σ w² ("plain").

    Biases do not decay. weights: one λ for each layer with connection weights; raises ValueError if the count differs.
    """
    layers = [layer for layer in weight_layers(network) if layer.weight.requires_grad]
    if len(layers) != len(weights):
        raise ValueError(f"{len(weights)} weight decays for {len(layers)} layers with weights: give one for each")
    divisor = DECAY_DIVISORS[convention]
    return sum(
        rate / divisor(layer.weight.shape[0]) * layer.weight.square().sum()
        for rate, layer in zip(weights, layers, strict=True)
    )


def fit(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    weight_decay: Sequence[float],
    decay_convention: str = "half",
    gradient_tolerance: float = 1e-5,
    max_iterations: int = 2000,
    history: int = 10,
    report: Callable[[str, object], None] = lambda message, *values: None,
) -> Trained:
    """Train `network` in place on images (n, ...) and labels (n,) and return the record of every iteration.

    Converged means: the largest component of the total loss's gradient is at most `gradient_tolerance`. It may also end
    because no step lowers the loss any more in the arithmetic's precision, or at `max_iterations`: the message says why.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    states: list[Iteration] = []
    latest = Iteration(*[float("nan")] * 4, 0)
    part_size = _PART[images.device.type]

    def total_loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal latest
        _assign(parameters, torch.from_numpy(flat))
        penalty = decay(network, weight_decay, decay_convention)
        loss, wrong = penalty.item(), 0
        gradient = _flat(torch.autograd.grad(penalty, parameters, materialize_grads=True))
        for part, truth in zip(images.split(part_size), labels.split(part_size), strict=True):
            logits = network(part)
            share = cross_entropy(logits, truth, reduction="sum") / len(images)
            gradient += _flat(torch.autograd.grad(share, parameters))
            loss += share.item()
            wrong += int((logits.argmax(1) != truth).sum())
        size, largest = gradient.norm().item(), gradient.abs().max().item()
        latest = Iteration(loss, size, largest, wrong / len(images), latest.evaluations + 1)
        return latest.loss, gradient.double().cpu().numpy()

    def after_iteration(intermediate_result) -> None:
        # L-BFGS-B accepts the point that it evaluated last, so `latest` describes it.
        states.append(latest)
        line = "iteration %d: loss %.6f, gradient norm %.2e (largest component %.2e), training error %.2f %%"
        report(line, len(states), latest.loss, latest.gradient_norm, latest.gradient_max, 100 * latest.error)

    start = _flat([parameter.detach() for parameter in parameters]).double().cpu().numpy()
    options = {
        "maxcor": history,
        "gtol": gradient_tolerance,
        "ftol": 0,
        "maxiter": max_iterations,
        "maxfun": 20 * max_iterations,
    }
    result = minimize(total_loss, start, jac=True, method="L-BFGS-B", callback=after_iteration, options=options)
    _assign(parameters, torch.from_numpy(result.x))
    return Trained(states or [latest], bool(np.abs(result.jac).max() <= gradient_tolerance), str(result.message))


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


@torch.no_grad()
def _assign(parameters: Sequence[nn.Parameter], flat: Tensor) -> None:
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.copy_(part.view_as(parameter))
