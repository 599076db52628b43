"""Training with the paper's quadratic weight decay, by full-batch L-BFGS until convergence."""

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

Report = Callable[..., None]


class Iteration(NamedTuple):
    """The state after one iteration of L-BFGS, or after one pass over the images in minibatches."""

    loss: float  # the total loss: mean cross-entropy plus decay
    gradient_norm: float  # ‖∇ total loss‖₂
    gradient_max: float  # its largest component, which convergence is judged by
    error: float  # fraction of the training images misclassified
    evaluations: int  # gradients of all images computed so far

    @classmethod
    def of(cls, state: "State", evaluations: int) -> "Iteration":
        gradient = state.gradient
        return cls(state.loss, gradient.norm().item(), gradient.abs().max().item(), state.error, evaluations)


class Trained(NamedTuple):
    history: list[Iteration]
    converged: bool
    message: str


class State(NamedTuple):
    """A total loss at the parameters' present values: its flat gradient, and an error to report beside it."""

    loss: float
    gradient: Tensor
    error: float


def no_report(message: str, *values: object) -> None:
    """The report that nobody reads."""


def decay(network: nn.Module, weights: Sequence[float], convention: str) -> Tensor:
    """loss_decay of Section 4.2: for each layer λ Σ w²/2 ("half"), λ Σ w²/k ("per_unit"), λ Σ w² ("plain").

    Biases do not decay. weights: one λ for each layer with connection weights; raises ValueError if the count differs.
    """
    return sum(factor * weight.square().sum() for weight, factor in decaying(network, weights, convention))


def decaying(network: nn.Module, weights: Sequence[float], convention: str) -> list[tuple[nn.Parameter, float]]:
    """The weights w of each layer with the factor that Σ w² has in `decay`."""
    layers = weight_layers(network)
    if len(layers) != len(weights):
        raise ValueError(f"{len(weights)} weight decays for {len(layers)} layers with weights: give one for each")
    divisor = DECAY_DIVISORS[convention]
    return [(layer.weight, rate / divisor(len(layer.weight))) for rate, layer in zip(weights, layers, strict=True)]


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
    report: Report = no_report,
) -> Trained:
    """Train `network` in place on images (n, ...) and labels (n,) and return the record of every iteration.

    Converged means: the largest component of the total loss's gradient is at most `gradient_tolerance`. It may also end
    because no step lowers the loss any more in the arithmetic's precision, or at `max_iterations`: the message says why.
    """
    return minimise(
        list(network.parameters()),
        lambda: total_loss(network, images, labels, weight_decay, decay_convention),
        gradient_tolerance=gradient_tolerance,
        max_iterations=max_iterations,
        history=history,
        report=report,
    )


def total_loss(
    network: nn.Module, images: Tensor, labels: Tensor, weight_decay: Sequence[float], decay_convention: str
) -> State:
    """Mean cross-entropy plus decay, with the error as the fraction of the images misclassified."""
    parameters = list(network.parameters())
    penalty = decay(network, weight_decay, decay_convention)
    loss, wrong = penalty.item(), 0
    gradient = flat(torch.autograd.grad(penalty, parameters, materialize_grads=True))
    for part, truth in zip(in_parts(images), in_parts(labels), strict=True):
        logits = network(part)
        share = cross_entropy(logits, truth, reduction="sum") / len(images)
        gradient += flat(torch.autograd.grad(share, parameters))
        loss += share.item()
        wrong += int((logits.argmax(1) != truth).sum())
    return State(loss, gradient, wrong / len(images))


def minimise(
    parameters: Sequence[nn.Parameter],
    objective: Callable[[], State],
    *,
    gradient_tolerance: float,
    max_iterations: int,
    history: int,
    error: str = "training error",
    report: Report = no_report,
) -> Trained:
    """Bring `parameters` in place, by L-BFGS, to where `objective` has a minimum (see `fit`).

    error: what the objective's error is, for the report.
    """
    states: list[Iteration] = []
    latest = Iteration(*[float("nan")] * 4, 0)

    def at(values: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal latest
        _assign(parameters, torch.from_numpy(values))
        state = objective()
        latest = Iteration.of(state, latest.evaluations + 1)
        return state.loss, state.gradient.double().cpu().numpy()

    def after_iteration(intermediate_result) -> None:
        # L-BFGS-B accepts the point that it evaluated last, so `latest` describes it.
        states.append(latest)
        tell(report, "iteration", error, states)

    start = flat([parameter.detach() for parameter in parameters]).double().cpu().numpy()
    options = {
        "maxcor": history,
        "gtol": gradient_tolerance,
        "ftol": 0,
        "maxiter": max_iterations,
        "maxfun": 20 * max_iterations,
    }
    result = minimize(at, start, jac=True, method="L-BFGS-B", callback=after_iteration, options=options)
    _assign(parameters, torch.from_numpy(result.x))
    return Trained(states or [latest], bool(np.abs(result.jac).max() <= gradient_tolerance), str(result.message))


def in_parts(values: Tensor) -> tuple[Tensor, ...]:
    """What the gradient is added up over."""
    return values.split(_PART[values.device.type])


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """One vector of all."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def tell(report: Report, unit: str, error: str, states: Sequence[Iteration]) -> None:
    """Report the last of the states; error says what the error is that they have."""
    line = "%s %d: loss %.6f, gradient norm %.2e (largest component %.2e), %s %.4f"
    last = states[-1]
    report(line, unit, len(states), last.loss, last.gradient_norm, last.gradient_max, error, last.error)


@torch.no_grad()
def _assign(parameters: Sequence[nn.Parameter], values: Tensor) -> None:
    for parameter, part in zip(parameters, values.split([p.numel() for p in parameters]), strict=True):
        parameter.copy_(part.view_as(parameter))
