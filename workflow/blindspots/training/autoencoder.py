"""A sparse autoencoder, which trains a network's first layer without labels (AE400-10 of Section 4.2).

The paper does not say what made its autoencoder sparse.
This module uses the usual penalty (Ng, *Sparse autoencoder*, CS294A lecture notes, 2011).
It is the Kullback-Leibler divergence between each hidden unit's mean activation and a small target.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from blindspots.networks.flattening import flat
from blindspots.parallel.chunks import in_chunks
from blindspots.parallel.workers import Workers
from blindspots.solvers.limited_memory import Function, Point
from blindspots.solvers.progress import Report, no_report
from blindspots.training import full_batch, samples
from blindspots.training.objective import Objective
from blindspots.training.record import State, Trained

METHODS = {"working_set": samples.fit, "full_batch": full_batch.fit}


def pretrain(
    encoder: nn.Sequential,
    images: Tensor,
    *,
    sparsity: float,
    sparsity_weight: float,
    weight_decay: float,
    method: str = "working_set",
    gradient_tolerance: float,
    max_iterations: int,
    history: int,
    generator: torch.Generator,
    threads: int = 1,
    report: Report = no_report,
) -> Trained:
    """Train an encoder in place, as half of a sparse autoencoder, by L-BFGS.

    With h = encoder(x) and x̂ = sigmoid(V h + a) it minimises

        mean ½‖x̂ - x‖² + λ/2 (‖W‖² + ‖V‖²) + β Σ_j KL(ρ ‖ mean h_j),

    where ρ is `sparsity`, β is `sparsity_weight` and λ is `weight_decay`.
    W is the weight of the encoder's linear layer.

    Args:
        encoder: The encoder: flatten, linear, sigmoid.
        images: The images, (m, ...), in [0, 1].
        sparsity: The target ρ of each hidden unit's mean activation.
        sparsity_weight: The weight β of the divergence.
        weight_decay: The weight decay λ of W and V.
        method: "working_set" or "full_batch", as in `convergence.fit`.
            No image matters more than another here.
            Therefore "working_set" uses all images, after first iterations on samples.
        gradient_tolerance: The largest component that the gradient may have at convergence.
        max_iterations: The largest number of L-BFGS iterations.
        history: The number of curvature pairs that L-BFGS keeps.
        generator: The random generator of the decoder's initial weights.
        threads: The number of threads.
        report: The function that reports progress.
    Returns:
        The record of the training. Its error is the root mean square of x̂ - x.
    Raises:
        KeyError: If the method is unknown.
        ValueError: If `threads` is less than 1.
    """
    linear = encoder[1]
    decoder = nn.utils.skip_init(nn.Linear, linear.out_features, linear.in_features)
    nn.init.xavier_uniform_(decoder.weight, generator=generator)
    nn.init.zeros_(decoder.bias)
    decoder.to(linear.weight)
    with Workers(threads) as workers:
        loss = Reconstruction(linear, decoder, images, sparsity, sparsity_weight, weight_decay, workers.map)
        limits = {
            "gradient_tolerance": gradient_tolerance,
            "max_iterations": max_iterations,
            "history": history,
        }
        return METHODS[method](loss, **limits, error="rms of x̂ - x", report=report)


class Reconstruction(Objective):
    """The loss of `pretrain` as a function of W, b, V and a.

    Units are rows in its computations, and images are columns.

    Args:
        encoder: The encoder's linear layer, with W (units, pixels) and b (units,).
        decoder: The decoder's linear layer, with V (pixels, units) and a (pixels,).
        images: The images, (m, ...), in [0, 1].
        sparsity: The target of each hidden unit's mean activation.
        sparsity_weight: The weight of the divergence.
        weight_decay: The weight decay of W and V.
        each: The function that computes independent parts, such as `map` or `Workers.map`.
    """

    def __init__(
        self,
        encoder: nn.Linear,
        decoder: nn.Linear,
        images: Tensor,
        sparsity: float,
        sparsity_weight: float,
        weight_decay: float,
        each: Callable = map,
    ):
        super().__init__([*encoder.parameters(), *decoder.parameters()], images, each)
        self._sparsity, self._sparsity_weight, self._weight_decay = sparsity, sparsity_weight, weight_decay

    def of_all(self, values: Tensor) -> tuple[float, Tensor]:
        """Return the loss over all images and its gradient; see `Objective.of_all`."""
        loss, gradient, self._misfit = self._over(self.images, values)
        return loss, gradient

    def of_sample(self, rows: Tensor) -> Function:
        """Return the loss over a sample of the images as a function; see `Objective.of_sample`."""
        images = self.images.index_select(0, rows)
        return lambda values: self._over(images, values)[:2]

    def state(self, point: Point) -> State:
        """Return the state at a point, with the root mean square of x̂ - x; see `Objective.state`."""
        return State(point.loss, point.gradient, math.sqrt(self._misfit / math.prod(self.images.shape[1:])))

    @torch.no_grad()
    def _over(self, images: Tensor, values: Tensor) -> tuple[float, Tensor, float]:
        """Return the loss over some images, its gradient, and the mean of ‖x̂ - x‖²."""
        self._assign(values, images)
        w, b, v, a = self.parameters
        n, parts = len(images), in_chunks(images)
        hidden = list(self.each(lambda x: torch.addmm(b[:, None], w, x.flatten(1).t()).sigmoid_(), parts))
        active = sum(self.each(lambda h: h.sum(1), hidden)) / n
        # The divergence depends on means over all images. Its gradient equals that of a sum over images,
        # Σ_j slope_j h_j / n.
        slope = self._sparsity_weight * ((1 - self._sparsity) / (1 - active) - self._sparsity / active)
        share = partial(_reconstructed, w, v, a, slope)
        decayed = self._weight_decay * flat([w, torch.zeros_like(b), v, torch.zeros_like(a)])
        gradient, misfit = torch.zeros_like(values), 0.0
        for part in self.each(lambda pair: share(*pair), zip(parts, hidden, strict=True)):
            gradient += part.gradient
            misfit += part.misfit / n
        divergence = self._sparsity_weight * _divergence(self._sparsity, active).sum().item()
        loss = misfit / 2 + torch.dot(decayed, values).item() / 2 + divergence
        return loss, gradient.div_(n).add_(decayed), misfit


class _Part(NamedTuple):
    """The contribution of some images to the loss and its gradient.

    Attributes:
        gradient: The flat gradient of a sum over these images.
        misfit: Σ ‖x̂ - x‖² over these images.
    """

    gradient: Tensor
    misfit: float


def _reconstructed(w: Tensor, v: Tensor, a: Tensor, slope: Tensor, images: Tensor, hidden: Tensor) -> _Part:
    """Return the gradient of Σ ½‖x̂ - x‖² + slope · h over some images, and their misfit."""
    x = images.flatten(1).t()
    found = torch.addmm(a[:, None], v, hidden).sigmoid_()
    off = found - x
    outer = torch.ops.aten.sigmoid_backward(off, found)
    inner = torch.ops.aten.sigmoid_backward(torch.addmm(slope[:, None], v.t(), outer), hidden)
    gradients = [inner @ x.t(), inner.sum(1), outer @ hidden.t(), outer.sum(1)]
    return _Part(flat(gradients), off.square_().sum().item())


def _divergence(rho: float, active: Tensor) -> Tensor:
    """Return KL(ρ ‖ ρ̂) of two Bernoulli distributions, for each hidden unit."""
    return rho * (rho / active).log() + (1 - rho) * ((1 - rho) / (1 - active)).log()
