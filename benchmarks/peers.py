"""Wrap public attacks that minimise the L2 distortion in one common signature, for benchmarks/attack.py.

Every function takes (model, images, classes, targeted) and returns adversarial images. The classes are the
targets or, if not targeted, the classes to leave. Settings are the defaults of the attack's library, except
those in the function's signature or docstring. envs/benchmark.txt says how to install the libraries.
"""

from collections.abc import Callable

import adv_lib.attacks
import foolbox
import numpy as np
import torch
from botorch.optim.batched_lbfgs_b import fmin_l_bfgs_b_batched
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

BISECTIONS = 12
LEAST_C, LARGEST_C = 1e-3, 1e3


def ddn(
    model: nn.Module, images: Tensor, classes: Tensor, targeted: bool, *, steps: int, levels: int | None = 256
) -> Tensor:
    """Decoupled direction and norm (Rony et al., 2019), adv-lib. Its default rounds pixels to 256 levels."""
    return adv_lib.attacks.ddn(model, images, classes, targeted=targeted, steps=steps, levels=levels)


def pdgd(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool, *, steps: int = 500) -> Tensor:
    """Primal-dual gradient descent (Matyasko and Chau, 2021), adv-lib."""
    return adv_lib.attacks.pdgd(model, images, classes, targeted=targeted, num_steps=steps)


def alma(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool, *, steps: int = 1000) -> Tensor:
    """Augmented Lagrangian (Rony et al., 2021), adv-lib."""
    return adv_lib.attacks.alma(model, images, classes, targeted=targeted, num_steps=steps)


def fmn(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool, *, steps: int) -> Tensor:
    """Fast minimum norm (Pintor et al., 2021), adv-lib; its default of 10 steps is too few.

    Until an image has succeeded once, each step goes to the linearised boundary and no further. Where the
    network is nearly linear, the image may then stall a rounding error before the boundary. Such images are
    returned unchanged and count as failures.
    """
    return adv_lib.attacks.fmn(model, images, classes, norm=2, targeted=targeted, steps=steps)


def cw(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool, *, steps: int = 1000) -> Tensor:
    """Carlini and Wagner (2017), adv-lib.

    There are 9 values of the weight with at most `steps` Adam steps each (the library's default is 10,000).
    """
    return adv_lib.attacks.carlini_wagner_l2(model, images, classes, targeted=targeted, max_iterations=steps)


def deepfool(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    """DeepFool (Moosavi-Dezfooli et al., 2016), adv-lib; untargeted only."""
    return adv_lib.attacks.df(model, images, classes, targeted=targeted)


def superdeepfool(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    """SuperDeepFool (Abdollahpour et al., 2023), adv-lib; untargeted only."""
    return adv_lib.attacks.sdf(model, images, classes, targeted=targeted)


def fab(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    """Fast adaptive boundary (Croce and Hein, 2020), adv-lib: 100 steps; untargeted only."""
    return adv_lib.attacks.fab(model, images, classes, norm=2, targeted=targeted)


def foolbox_ddn(
    model: nn.Module, images: Tensor, classes: Tensor, targeted: bool, *, steps: int = 100
) -> Tensor:
    """Decoupled direction and norm, Foolbox."""
    return _foolbox(foolbox.attacks.DDNAttack(steps=steps), model, images, classes, targeted)


def foolbox_fmn(
    model: nn.Module, images: Tensor, classes: Tensor, targeted: bool, *, steps: int = 100
) -> Tensor:
    """Fast minimum norm, Foolbox.

    The L2 projection of its version 3.3.4 scales by norm/norm, so it moves nothing.
    """
    return _foolbox(foolbox.attacks.L2FMNAttack(steps=steps), model, images, classes, targeted)


def foolbox_cw(
    model: nn.Module, images: Tensor, classes: Tensor, targeted: bool, *, steps: int = 1000
) -> Tensor:
    """Carlini and Wagner, Foolbox.

    There are 9 values of the weight with at most `steps` Adam steps each (the library's default is 10,000).
    """
    return _foolbox(foolbox.attacks.L2CarliniWagnerAttack(steps=steps), model, images, classes, targeted)


def foolbox_deepfool(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    """DeepFool, Foolbox; untargeted only."""
    return _foolbox(foolbox.attacks.L2DeepFoolAttack(), model, images, classes, targeted)


def _foolbox(
    attack: foolbox.Attack, model: nn.Module, images: Tensor, classes: Tensor, targeted: bool
) -> Tensor:
    criterion = foolbox.criteria.TargetedMisclassification if targeted else foolbox.criteria.Misclassification
    device = images.device
    adversarial, _, _ = attack(
        foolbox.PyTorchModel(model, bounds=(0, 1), device=device), images, criterion(classes), epsilons=None
    )
    return adversarial


# From points (b, n) and the indices of their images (b,) to values (b,) and gradients (b, n), in float64.
Objective = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def scipy_lbfgsb(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool, *, power: int) -> Tensor:
    """SciPy's L-BFGS-B, for each of 12 values of c (see `_largest_c`).

    It minimises image by image and starts from the original image.
    """

    def minimise(objective: Objective, start: np.ndarray) -> np.ndarray:
        def single(row: int) -> np.ndarray:
            def value_and_gradient(point: np.ndarray) -> tuple[float, np.ndarray]:
                values, gradients = objective(point[None], np.array([row]))
                return values[0], gradients[0]

            box = [(0, 1)] * start.shape[1]
            return minimize(value_and_gradient, start[row], jac=True, method="L-BFGS-B", bounds=box).x

        return np.stack([single(row) for row in range(len(start))])

    return _largest_c(minimise, model, images, classes, power)


def botorch_lbfgsb(
    model: nn.Module, images: Tensor, classes: Tensor, targeted: bool, *, power: int
) -> Tensor:
    """BoTorch's batched L-BFGS-B, for each of 12 values of c (see `_largest_c`).

    It starts from the original images.
    """

    def minimise(objective: Objective, start: np.ndarray) -> np.ndarray:
        def values_and_gradients(
            points: np.ndarray, batch_indices: list[int]
        ) -> tuple[np.ndarray, np.ndarray]:
            return objective(points, np.array(batch_indices))

        box = [(0, 1)] * start.shape[1]
        return fmin_l_bfgs_b_batched(values_and_gradients, start, bounds=box, pass_batch_indices=True)[0]

    return _largest_c(minimise, model, images, classes, power)


def _largest_c(
    minimise: Callable[[Objective, np.ndarray], np.ndarray],
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    power: int,
) -> Tensor:
    """The paper's procedure around a public minimiser of c‖r‖₂ᵖ + cross-entropy, where p is the power.

    It searches for the largest c that succeeds. Twelve bisections of log c from [1e-3, 1e3] determine it to
    0.3 %. The nearest success of all is returned.
    """
    start = images.flatten(1).double().numpy()
    low, high = torch.full((len(images),), LEAST_C), torch.full((len(images),), LARGEST_C)
    best, distance = images.clone(), torch.full((len(images),), torch.inf)
    for _ in range(BISECTIONS):
        c = (low * high).sqrt()

        def objective(points: np.ndarray, rows: np.ndarray, c: Tensor = c) -> tuple[np.ndarray, np.ndarray]:
            at = torch.from_numpy(points).to(images).requires_grad_()
            loss = cross_entropy(model(at.view(-1, *images.shape[1:])), classes[rows], reduction="none")
            penalty = c[rows] * (at - images[rows].flatten(1)).norm(dim=1) ** power
            values = loss + penalty
            (gradient,) = torch.autograd.grad(values.sum(), at)
            return values.detach().double().numpy(), gradient.double().numpy()

        points = torch.from_numpy(minimise(objective, start)).to(images).view_as(images)
        with torch.no_grad():
            success = model(points).argmax(1) == classes
        far = (points - images).flatten(1).norm(dim=1)
        nearer = success & (far < distance)
        best[nearer], distance[nearer] = points[nearer], far[nearer]
        low, high = torch.where(success, c, low), torch.where(success, high, c)
    return best
