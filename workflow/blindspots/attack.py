"""D(x, l): the nearest image to x that a network calls l, by the paper's procedure (Section 4.1).

For a penalty weight c, box-constrained L-BFGS minimises c|r| + loss(x + r, l) over x + r in the box; a line search over
c looks for the smallest distortion that succeeds. (The paper prints 'minimum c': c weighs |r|, so a larger c gives a
smaller distortion, and what is looked for is the largest c that still succeeds.)
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from blindspots.lbfgs import CONVERGED, NO_DESCENT, OUT_OF_EVALUATIONS, Evaluation, minimize_in_box

NOT_FOUND, ALREADY = 3, 4
STATUS = {
    CONVERGED: "converged",
    OUT_OF_EVALUATIONS: "found with the evaluations at its c used up",
    NO_DESCENT: "found where no step at its c descended further",
    NOT_FOUND: "no adversarial example found",
    ALREADY: "classified as the target before",
}


class Adversarial(NamedTuple):
    """The result of an attack on b images.

    images (b, ...): x + r, or the original image where none was found; success (b,) bool; distortion (b,): root mean square
    of r, NaN where none was found; c (b,): the penalty weight it was found with; residual (b,): the projected gradient
    of the penalised problem relative to that of the penalty; gradient_evaluations (b,); status (b,): keys of `STATUS`.
    """

    images: Tensor
    success: Tensor
    distortion: Tensor
    c: Tensor
    residual: Tensor
    gradient_evaluations: Tensor
    status: Tensor


@torch.no_grad()
def minimum_distortion(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    norm: str = "l2",
    bounds: tuple[float, float] = (0.0, 1.0),
    c_tolerance: float = 0.01,
    c_growth: float = 1.3,
    max_searches: int = 30,
    tolerance: float = 1e-3,
    max_evaluations: int = 200,
    history: int = 6,
    margin: float = 1e-4,
    batch: int = 500,
    report: Callable[..., None] = lambda message, *values: None,
) -> Adversarial:
    """The nearest images that `model` classifies as `targets`.

    model:           returns logits (b, k); in evaluation mode.
    bounds:          the box, the smallest and the largest pixel value.
    images, targets: (b, ...) within the bounds; (b,) class labels.
    norm:            the penalty on r: "l2" for the paper's c‖r‖₂, "squared_l2" for c‖r‖₂².
    c_tolerance:     the search over c ends when the largest c that succeeds and the smallest that fails differ by at
                     most this fraction, or after `max_searches` values of c; until both exist, c moves by `c_growth`, its
                     square, its cube, and so on.
    tolerance, max_evaluations, history: of the minimisation at each c (see `minimize_in_box`).
    margin:          a success needs the target's logit to lead by this much, so that rounding, which differs between
                     batch sizes and devices, does not undo it.
    batch:           images worked on together; bounds the memory, 2 (history + 8) floats for each of their pixels.

    report:          called after each batch with a message and its values, as a logger's `info` is.

    Returns an `Adversarial`. A minimum is a local one: the best that the search came to. `STATUS` says in words what a
    result's status codes mean.

    Raises ValueError for input that no attack can be made on.
    """
    _check(model, images, targets, norm, bounds)
    for name, number in {"history": history, "batch": batch, "max_searches": max_searches}.items():
        if number < 1:
            raise ValueError(f"{name} is {number}: it has to be 1 at least")
    if c_growth <= 1:
        raise ValueError(f"c_growth is {c_growth}: it has to be larger than 1")
    parts = []
    for start in range(0, len(images), batch):
        chosen = slice(start, start + batch)
        problem = _Problem(model, images[chosen], targets[chosen].long(), norm, bounds)
        parts.append(_search(problem, c_tolerance, c_growth, max_searches, tolerance, max_evaluations, history, margin))
        _report(report, parts, len(images))
    return _joined(parts)


def nearest_distortion(
    model: nn.Module,
    images: Tensor,
    allowed: Tensor,
    *,
    batch: int = 500,
    report: Callable[..., None] = lambda message, *values: None,
    **options,
) -> tuple[Adversarial, Tensor]:
    """The smallest minimum distortion over the (b, k) allowed target classes of each image, and that class (b,).

    The options are those of `minimum_distortion`. The evaluations are those of all the classes together.
    Raises ValueError for an image without an allowed class.
    """
    if len(allowed) != len(images) or not len(images):
        raise ValueError(f"{len(images)} images with {len(allowed)} rows of allowed targets: give one row for each image")
    if not allowed.any(dim=1).all():
        raise ValueError(f"image {int(allowed.any(dim=1).int().argmin())} has no allowed target class")
    parts, targets = [], []
    for start in range(0, len(images), batch):
        part, target = _nearest(model, images[start : start + batch], allowed[start : start + batch], batch, options)
        parts.append(part)
        targets.append(target)
        _report(report, parts, len(images))
    return _joined(parts), torch.cat(targets)


def _nearest(model: nn.Module, images: Tensor, allowed: Tensor, batch: int, options: dict) -> tuple[Adversarial, Tensor]:
    image, target = allowed.nonzero().unbind(1)  # every pair of an image and a class that it may become
    every = minimum_distortion(model, images[image], target, batch=batch, **options)
    size = every.distortion.nan_to_num(torch.inf)
    sizes = size.new_full(allowed.shape, torch.inf).masked_scatter(allowed, size)
    first = allowed & (sizes == sizes.amin(1, keepdim=True))
    nearest = (first & (first.cumsum(1) == 1))[allowed]
    evaluations = torch.zeros_like(allowed, dtype=torch.long).masked_scatter(allowed, every.gradient_evaluations).sum(1)
    best = Adversarial(*(values[nearest] for values in every))
    return best._replace(gradient_evaluations=evaluations), target[nearest]


def _joined(parts: list[Adversarial]) -> Adversarial:
    return Adversarial(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _report(report: Callable[..., None], parts: list[Adversarial], total: int) -> None:
    distortions = torch.cat([part.distortion for part in parts])
    report("%d of %d images, mean distortion %.4f", len(distortions), total, distortions.nanmean().item())


class _Problem:
    """The penalised problem for one batch of images, as (b, n) rows."""

    def __init__(self, model, images, targets, norm, bounds):
        self.model, self.targets, self.norm = model, targets, norm
        self.lower, self.upper = bounds
        self.shape = images.shape
        self.x = images.flatten(1)

    def loss(self, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """loss(x + r, l): (b,) cross-entropies towards the target, and their (b, n) gradients."""
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            logits = self.model(points.view(-1, *self.shape[1:]))
            losses = cross_entropy(logits, self.targets[rows], reduction="none")
            (gradient,) = torch.autograd.grad(losses.sum(), points)
        return losses.detach(), gradient

    def objective(self, c: Tensor) -> Callable[[Tensor, Tensor], Evaluation]:
        """c|r| + loss(x + r, l) as a function of x + r, for one c a row; its scale is the norm of the penalty's gradient."""

        def penalised(points: Tensor, rows: Tensor) -> Evaluation:
            losses, gradient = self.loss(points, rows)
            r = points - self.x[rows]
            size = r.norm(dim=1)
            if self.norm == "squared_l2":
                slope = 2 * c[rows] * size
                return Evaluation(losses + c[rows] * size**2, gradient + 2 * c[rows][:, None] * r, _positive(slope))
            combined = gradient + (c[rows] / _positive(size))[:, None] * r
            combined = torch.where((size > 0)[:, None], combined, self._smallest_subgradient(points, gradient, c[rows]))
            return Evaluation(losses + c[rows] * size, combined, c[rows])

        return penalised

    def _smallest_subgradient(self, points: Tensor, gradient: Tensor, c: Tensor) -> Tensor:
        """At r = 0, where ‖r‖₂ has a kink: the loss's gradient shortened by c, or 0 where r = 0 is the minimum."""
        outwards = ((points <= self.lower) & (gradient > 0)) | ((points >= self.upper) & (gradient < 0))
        size = (gradient * ~outwards).norm(dim=1)
        return gradient * (1 - c / _positive(size)).clamp_min(0)[:, None]

    def lead(self, points: Tensor) -> Tensor:
        """By how much the target's logit leads the others: (b,)."""
        logits = self.model(points.view(self.shape))
        target = logits.gather(1, self.targets[:, None])
        return (target - logits.scatter(1, self.targets[:, None], -torch.inf).amax(1, keepdim=True)).squeeze(1)

    def subset(self, rows: Tensor) -> "_Problem":
        images = self.x[rows].view(-1, *self.shape[1:])
        return _Problem(self.model, images, self.targets[rows], self.norm, (self.lower, self.upper))


def _search(problem: _Problem, c_tolerance, c_growth, max_searches, tolerance, max_evaluations, history, margin):
    """The line search over c, for every image of the batch at once: move c until it is bracketed, then bisect."""
    x, size = problem.x, len(problem.x)
    lead = problem.lead(x)
    already = lead > 0
    loss, gradient = problem.loss(x, torch.arange(size, device=x.device))
    slope = _positive(gradient.norm(dim=1))
    reach = _positive(loss) / slope  # how far away the loss would be zero if it went on like this

    best, reached = x.clone(), already.clone()
    distance = torch.where(already, 0, torch.inf).to(x)
    c = slope / 2 if problem.norm == "l2" else slope / (4 * reach)
    best_c, residual = torch.full_like(c, torch.nan), torch.full_like(c, torch.nan)
    succeeds, fails = torch.zeros_like(c), torch.full_like(c, torch.inf)
    evaluations = torch.ones(size, dtype=torch.long, device=x.device)
    status = torch.where(already, ALREADY, NOT_FOUND)

    rows = (~already).nonzero().squeeze(1)
    for search in range(1, max_searches + 1):
        if not len(rows):
            break
        part = problem.subset(rows)
        warm = reached[rows]
        curvature = distance[rows] / c[rows] if problem.norm == "l2" else 0.5 / c[rows]
        minimum = minimize_in_box(
            part.objective(c[rows]),
            best[rows],
            torch.where(warm, curvature, reach[rows] / slope[rows]),
            lower=problem.lower,
            upper=problem.upper,
            history=history,
            tolerance=tolerance,
            max_evaluations=max_evaluations,
        )
        evaluations[rows] += minimum.evaluations
        success = part.lead(minimum.x) >= margin
        succeeds[rows] = torch.where(success, c[rows], succeeds[rows])
        fails[rows] = torch.where(success, fails[rows], c[rows])

        far = (minimum.x - part.x).norm(dim=1)
        nearer = success & (far < distance[rows])
        better = rows[nearer]
        best[better], distance[better], best_c[better] = minimum.x[nearer], far[nearer], c[better]
        residual[better], status[better] = minimum.residual[nearer], minimum.status[nearer]
        reached[better] = True

        factor = c_growth**search
        bisected = (succeeds * fails).sqrt()
        c = torch.where(fails.isinf(), factor * succeeds, torch.where(succeeds > 0, bisected, fails / factor))
        rows = rows[fails[rows] > (1 + c_tolerance) * succeeds[rows]]

    root_mean_square = torch.where(reached, distance / x[0].numel() ** 0.5, torch.nan)
    return Adversarial(best.view(problem.shape), reached, root_mean_square, best_c, residual, evaluations, status)


def _positive(values: Tensor) -> Tensor:
    return values.clamp_min(torch.finfo(values.dtype).tiny)


def _check(model: nn.Module, images: Tensor, targets: Tensor, norm: str, bounds: tuple[float, float]) -> None:
    if norm not in ("l2", "squared_l2"):
        raise ValueError(f"norm is {norm!r}: use 'l2' or 'squared_l2'")
    if not isinstance(images, Tensor) or not isinstance(targets, Tensor):
        raise ValueError(f"images and targets are {type(images).__name__} and {type(targets).__name__}: give tensors")
    if not bounds[0] < bounds[1]:
        raise ValueError(f"bounds are {bounds}: give the smaller one first")
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() first")
    if not len(images):
        raise ValueError("there are no images to attack")
    if not images.is_floating_point():
        raise ValueError(f"the images are {images.dtype}: make them floating-point numbers within the bounds")
    if not ((images >= bounds[0]) & (images <= bounds[1])).all():
        raise ValueError(f"an image has a value outside [{bounds[0]}, {bounds[1]}], or NaN: scale the images or give bounds")
    if targets.shape != images.shape[:1] or targets.is_floating_point() or targets.is_complex():
        raise ValueError(
            f"the targets are {targets.dtype} {tuple(targets.shape)}: give one class for each of {len(images)} images"
        )
    logits = model(images[:1])
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise ValueError(f"the model returns {type(logits).__name__}: it has to return a tensor of (b, k) logits")
    if logits.isnan().any():
        raise ValueError("the model returns NaN for the first image: no attack can be made on it")
    if not ((targets >= 0) & (targets < logits.shape[1])).all():
        raise ValueError(f"a target is not one of the model's {logits.shape[1]} classes")
