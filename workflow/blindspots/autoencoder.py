"""A sparse autoencoder, which trains a network's first layer without labels (AE400-10 of Section 4.2).

The paper does not say what made its autoencoder sparse. Here it is the usual penalty: the Kullback-Leibler divergence of
each hidden unit's mean activation from a small one (Ng, *Sparse autoencoder*, CS294A lecture notes, 2011).
"""

import math

import torch
from torch import Tensor, nn

from blindspots.training import Report, State, Trained, flat, in_parts, minimise, no_report


def pretrain(
    encoder: nn.Sequential,
    images: Tensor,
    *,
    sparsity: float,
    sparsity_weight: float,
    weight_decay: float,
    gradient_tolerance: float,
    max_iterations: int,
    history: int,
    generator: torch.Generator,
    report: Report = no_report,
) -> Trained:
    """Train `encoder` (flatten, linear, sigmoid) in place, by full-batch L-BFGS, on images (n, ...) in [0, 1].

    With h = encoder(x) and x̂ = sigmoid(V h + b) it minimises

        mean ½‖x̂ - x‖² + λ/2 (‖W‖² + ‖V‖²) + β Σ_j KL(ρ ‖ mean h_j),

    where ρ is `sparsity`, β `sparsity_weight` and λ `weight_decay`. The record's error is the root mean square of x̂ - x.
    """
    linear = encoder[1]
    decoder = nn.utils.skip_init(nn.Linear, linear.out_features, linear.in_features)
    nn.init.xavier_uniform_(decoder.weight, generator=generator)
    nn.init.zeros_(decoder.bias)
    decoder.to(linear.weight)
    parameters = [*linear.parameters(), *decoder.parameters()]
    n, pixels = len(images), math.prod(images.shape[1:])

    def objective() -> State:
        with torch.no_grad():
            active = sum(encoder(part).sum(0) for part in in_parts(images)) / n
        # The divergence is of means over all images; its gradient is that of a sum over images, Σ_j slope_j h_j / n.
        slope = sparsity_weight * ((1 - sparsity) / (1 - active) - sparsity / active)
        squares = linear.weight.square().sum() + decoder.weight.square().sum()
        penalty = weight_decay / 2 * squares
        loss = penalty.item() + sparsity_weight * _divergence(sparsity, active).sum().item()
        gradient = flat(torch.autograd.grad(penalty, parameters, materialize_grads=True))
        error = 0.0
        for part in in_parts(images):
            hidden = encoder(part)
            misfit = (decoder(hidden).sigmoid() - part.flatten(1)).square().sum() / n
            gradient += flat(torch.autograd.grad(misfit / 2 + (hidden @ slope).sum() / n, parameters))
            error += misfit.item()
        return State(loss + error / 2, gradient, math.sqrt(error / pixels))

    return minimise(
        parameters,
        objective,
        gradient_tolerance=gradient_tolerance,
        max_iterations=max_iterations,
        history=history,
        error="rms of x̂ - x",
        report=report,
    )


def _divergence(rho: float, active: Tensor) -> Tensor:
    """KL(ρ ‖ ρ̂) of two Bernoulli distributions."""
    return rho * (rho / active).log() + (1 - rho) * ((1 - rho) / (1 - active)).log()
