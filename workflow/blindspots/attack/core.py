"""D(x, l): the nearest image to x that a network calls l (Section 4.1), for any network that returns logits."""

import math
from collections.abc import Callable
from numbers import Integral
from typing import NamedTuple

import psutil
import torch
from torch import Tensor, nn

from blindspots.attack import penalty, sqp
from blindspots.attack import targets as policies
from blindspots.attack.checks import (
    as_module,
    as_numbers,
    check_bounds,
    check_classes,
    check_count,
    check_inputs,
    without_rounding,
)
from blindspots.attack.outcome import outcome
from blindspots.attack.penalty import LBFGS
from blindspots.attack.problem import Found, Problem
from blindspots.attack.sqp import SQP
from blindspots.networks.evaluation import logits
from blindspots.parallel.workers import Processes, Workers
from blindspots.solvers.box_lbfgs import CONVERGED, NO_DESCENT, OUT_OF_EVALUATIONS
from blindspots.solvers.progress import Report, no_report

NOT_FOUND, ALREADY, NO_GRADIENT = 3, 4, 5
STATUS = {
    CONVERGED: "converged",
    OUT_OF_EVALUATIONS: "found with its evaluations used up",
    NO_DESCENT: "found where no step descended further",
    NOT_FOUND: "no adversarial example found",
    ALREADY: "classified as the target before",
    NO_GRADIENT: "no adversarial example found, as the logits have no gradient at the image",
}
METHODS = {"sqp": SQP(), "lbfgs": LBFGS()}
POLICIES = ("random", "second", "nearest")

_VECTORS = (
    40  # of an image's size, for each one in work, by either method as they are; longer histories take more
)
_NEAR_THE_CACHE = 64 * 2**20  # bytes: on a CPU, more at once are no faster,
_AT_LEAST = 32  # but fewer images than this are slower


class Adversarial(NamedTuple):
    """The result of an attack on b images.

    images (b, ...): x + r, or the original image where none was found; targets (b,); success (b,) bool; distortion (b,):
    root mean square of r, NaN where none was found; c (b,): the penalty weight it was found with, NaN for "sqp"; residual
    (b,): how far from optimal it is, 0 at a minimum, for "lbfgs" the projected gradient of the penalised problem relative
    to that of the penalty, for "sqp" and `refine` the length of the last quadratic step relative to ‖r‖ (the KKT
    conditions of min ‖r‖ itself), NaN where there was no step; gradient_evaluations (b,); status (b,): keys of `STATUS`.
    """

    images: Tensor
    targets: Tensor
    success: Tensor
    distortion: Tensor
    c: Tensor
    residual: Tensor
    gradient_evaluations: Tensor
    status: Tensor


def minimum_distortion(
    model: nn.Module | Callable[[Tensor], Tensor],
    images: Tensor,
    targets: Tensor | str,
    *,
    method: str | SQP | LBFGS = "sqp",
    labels: Tensor | None = None,
    seed: int = 0,
    bounds: tuple[float, float] = (0.0, 1.0),
    margin: float = 1e-4,
    batch: int | None = None,
    threads: int = 1,
    processes: bool = False,
    report: Report = no_report,
) -> Adversarial:
    """The nearest images that `model` classifies as `targets`.

    model:   a module or a function, which returns logits (b, k), the same for an image whatever is beside it; in evaluation
             mode, on the images' device and of their dtype. It does not clamp its images, whose gradient would be lost at
             the bounds; the attack keeps to these by itself.
    images:  (b, ...), float32 or float64, within the bounds. In float64 the results are the same on every device, by the
             paper's procedure if it is LBFGS(rounded=True).
    targets: (b,) class labels; or a policy: "random" (uniformly, by the seed), "second" (the most likely other class), or
             "nearest" (the other class with the smallest distortion, for k - 1 times the work).
    method:  "sqp", the nearest minimum that we know how to find; "lbfgs", the paper's procedure; or either with options of
             its own, as in method=SQP(exploration=0).
    labels:  (b,) the true classes, which a policy then does not choose either, unless there are but two classes; what the
             model says it never chooses.
    bounds:  the box, the smallest and the largest pixel value.
    margin:  a success needs the target's logit to lead by this much, so that rounding, which differs between batch sizes
             and devices, does not undo it.
    batch:   images worked on together, which bounds the memory; by itself as many as fit.
    threads: batches worked on at the same time on a CPU, by a thread each, as far as they fit into its memory. They change
             nothing of the results, if the model keeps nothing of one call for another.
    processes: whether the threads are processes, copies of this one, which is quicker (see `parallel`).
    report:  called after each batch with a message and its values, as a logger's `info` is.

    Returns an `Adversarial`. A minimum is a local one: the best that the search came to. Success and distortion are
    measured on the images, apart from the search.

    Raises ValueError for input that no attack can be made on.
    """
    options = _options(method)
    model, bounds = as_module(model), as_numbers(bounds)
    images = without_rounding(images, bounds)
    classes = check_inputs(model, images, bounds, margin, batch)
    check_count("threads", threads)
    parts = _Parts.of(model, images, batch, threads, _vectors(options, classes))
    if isinstance(targets, str):
        targets, allowed = _chosen(model, images, targets, labels, classes, seed, parts.size)
    else:
        check_classes("target", targets, images, classes)
        targets, allowed = targets.long(), None

    def attacked(images: Tensor, targets: Tensor) -> Adversarial:
        problem = Problem(model, images, targets, bounds, margin)
        return _result(problem, images, lambda rest, rows: _search(rest, options))

    def nearest(part: slice) -> Adversarial:
        pairs = allowed[part].nonzero().split(parts.size)  # of an image and a class that it may become
        every = [attacked(images[part][some[:, 0]], some[:, 1]) for some in pairs]
        return _nearest_of(_joined(every), allowed[part])

    if allowed is None:
        return _in_parts(
            lambda part: attacked(images[part], targets[part]), len(images), parts, processes, report
        )
    smaller = parts._replace(size=max(1, parts.size // (classes - 1)))
    return _in_parts(nearest, len(images), smaller, processes, report)


def refine(
    model: nn.Module | Callable[[Tensor], Tensor],
    images: Tensor,
    adversarial: Tensor,
    targets: Tensor,
    *,
    method: str | SQP = "sqp",
    bounds: tuple[float, float] = (0.0, 1.0),
    margin: float = 1e-4,
    batch: int | None = None,
    threads: int = 1,
    processes: bool = False,
    report: Report = no_report,
) -> Adversarial:
    """From (b, ...) adversarial images of any origin on to the local minima of the distortion that they lead to.

    An image that the model does not classify as its target stays the original, without success. No image ends further away.
    For the rest see `minimum_distortion`.
    """
    options = _options(method)
    if not isinstance(options, SQP):
        raise ValueError(f"method is {method!r}: the refinement is by SQP(...)")
    model, bounds = as_module(model), as_numbers(bounds)
    images = without_rounding(images, bounds)
    classes = check_inputs(model, images, bounds, margin, batch)
    check_count("threads", threads)
    check_classes("target", targets, images, classes)
    if (
        not isinstance(adversarial, Tensor)
        or adversarial.shape != images.shape
        or adversarial.dtype != images.dtype
    ):
        raise ValueError(
            f"the adversarial images are not {images.dtype} {tuple(images.shape)}, as the originals are"
        )
    adversarial = without_rounding(adversarial, bounds)
    check_bounds("an adversarial image", adversarial, bounds)

    def refined(part: slice) -> Adversarial:
        problem = Problem(model, images[part], targets[part].long(), bounds, margin)
        start = problem.points(adversarial[part])
        of_the_target = problem.leads(start, problem.rows).amin(1) > 0

        def search(rest: Problem, rows: Tensor) -> Found:
            return sqp.minima(rest, start[rows], torch.ones_like(rows, dtype=torch.bool), options)

        return _result(problem, images[part], search, of_the_target)

    parts = _Parts.of(model, images, batch, threads, _vectors(options, classes))
    return _in_parts(refined, len(images), parts, processes, report)


def _options(method: str | SQP | LBFGS) -> SQP | LBFGS:
    if isinstance(method, SQP | LBFGS):
        return method
    if method not in METHODS:
        raise ValueError(f"method is {method!r}: use one of {', '.join(METHODS)}, or SQP(...) or LBFGS(...)")
    return METHODS[method]


def _vectors(options: SQP | LBFGS, classes: int) -> int:
    """Vectors of an image's size that a method works with for each image."""
    if isinstance(options, LBFGS):
        of_method = 2 * (
            2 * options.history + 1
        )  # pairs and a step, and once more while images are taken out
    else:
        competitors = min(options.competitors_after(options.max_rounds - 1), classes - 1)
        of_method = 3 * competitors  # their gradients, with what a projection makes of them
    return max(_VECTORS, 15 + of_method)


def _search(problem: Problem, options: SQP | LBFGS) -> Found:
    return penalty.search(problem, options) if isinstance(options, LBFGS) else sqp.nearest(problem, options)


def _chosen(model, images, policy, labels, classes, seed, batch) -> tuple[Tensor | None, Tensor | None]:
    """The targets that a policy chooses (b,), or for "nearest" all the classes that it may choose from, (b, k)."""
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed is {seed!r}: give a whole number of 64 bits")
    if policy not in POLICIES:
        raise ValueError(f"targets are {policy!r}: give class labels or one of {', '.join(POLICIES)}")
    said = logits(model, images, batch)
    predicted = said.argmax(1)
    if labels is None:
        labels = predicted
    check_classes("label", labels, images, classes)
    match policy:
        case "random":
            return policies.random_targets(labels.long(), predicted, classes, seed), None
        case "second":
            return policies.second_targets(said, labels.long()), None
        case _:
            return None, policies.other_classes(labels.long(), predicted, classes)


class _Parts(NamedTuple):
    """How many images are worked on together, and by how many threads side by side."""

    size: int
    threads: int

    @classmethod
    def of(
        cls, model: nn.Module, images: Tensor, batch: int | None, threads: int, vectors: int = _VECTORS
    ) -> "_Parts":
        """The size, if it is not given, is as many as half of the free memory holds, and on a CPU no more than is fastest; a
        power of two, so that the parting, which changes the rounding, hardly depends on what else is running. It never
        depends on the threads, of which there are so many that their parts fit."""
        an_image = _bytes_in_work(model, images, vectors)
        free = (
            torch.cuda.mem_get_info(images.device)[0] if images.is_cuda else psutil.virtual_memory().available
        )
        most = math.inf if images.is_cuda else max(_NEAR_THE_CACHE, an_image * _AT_LEAST)
        size = batch or 2 ** max(0, math.floor(math.log2(min(free / 2, most) / an_image)))
        fitting = 1 if images.is_cuda else max(1, math.floor(free / 2 / (an_image * min(size, len(images)))))
        return cls(size, min(threads, fitting))


def _in_parts(
    attacked: Callable[[slice], Adversarial], total: int, parts: _Parts, processes: bool, report: Report
) -> Adversarial:
    done: list[Adversarial] = []
    with (Processes if processes and parts.threads > 1 else Workers)(parts.threads) as workers:
        slices = [slice(first, first + parts.size) for first in range(0, total, parts.size)]
        for result in workers.map(torch.no_grad()(attacked), slices):
            done.append(result)
            distortions = torch.cat([part.distortion for part in done])
            report(
                "%d of %d images, mean distortion %.4f", len(distortions), total, distortions.nanmean().item()
            )
    return _joined(done)


def _joined(parts: list[Adversarial]) -> Adversarial:
    return Adversarial(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _result(
    problem: Problem, original: Tensor, search: Callable[[Problem, Tensor], Found], todo: Tensor | None = None
) -> Adversarial:
    """What `search` finds for the originals (b, ...) that are not of their target's class before, if to do, (b,) bool."""
    already = problem.leads(problem.x, problem.rows).amin(1) > 0
    points, unknown = problem.x.clone(), torch.full_like(problem.x[:, 0], torch.nan)
    c, residual = unknown.clone(), unknown.clone()
    status, flat = torch.where(already, ALREADY, NOT_FOUND), torch.zeros_like(already)
    rows = problem.rows[~already if todo is None else ~already & todo]
    if len(rows):
        rest = problem.subset(rows)
        found = search(rest, rows)
        points[rows], c[rows], residual[rows], status[rows] = (
            found.points,
            found.c,
            found.residual,
            found.status,
        )
        problem.gradient_evaluations[rows] += rest.gradient_evaluations
        if len(failed := rows[~found.reached]):
            _, gradients = problem.smallest_lead(problem.x[failed], failed)
            # As of a model that rounds, whose units are all off or saturated, or that takes a root at 0.
            flat[failed] = ~gradients.any(1) | ~gradients.isfinite().all(1)

    moved = (points != problem.x).view(-1, *problem.shape)
    adversarial = torch.where(moved, problem.images(points).clamp(*problem.bounds), original)
    success, distortion = outcome(problem.model, original, adversarial, problem.targets, problem.bounds)
    kept = success.view(-1, *[1] * len(problem.shape))
    return Adversarial(
        torch.where(kept, adversarial, original),
        problem.targets,
        success,
        distortion,
        torch.where(success, c, unknown),
        torch.where(success, residual, unknown),
        problem.gradient_evaluations,
        torch.where(success, status, torch.where(flat, NO_GRADIENT, NOT_FOUND)),
    )


def _nearest_of(every: Adversarial, allowed: Tensor) -> Adversarial:
    """Of the results for all allowed pairs of (b, k), each image's nearest; the evaluations are those of all of them."""
    size = every.distortion.nan_to_num(torch.inf)
    sizes = size.new_full(allowed.shape, torch.inf).masked_scatter(allowed, size)
    first = allowed & (sizes == sizes.amin(1, keepdim=True))
    nearest = (first & (first.cumsum(1) == 1))[allowed]
    evaluations = (
        torch.zeros_like(allowed, dtype=torch.long).masked_scatter(allowed, every.gradient_evaluations).sum(1)
    )
    return Adversarial(*(values[nearest] for values in every))._replace(gradient_evaluations=evaluations)


def _bytes_in_work(model: nn.Module, images: Tensor, vectors: int = _VECTORS) -> int:
    """What an image in work takes of memory, with what the network keeps for its gradient."""
    kept = []
    own = {parameter.data_ptr() for parameter in model.parameters()}
    with (
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t),
    ):
        model(images[:1].detach().clone().requires_grad_())
    activations = sum(tensor.nbytes for tensor in kept if tensor.data_ptr() not in own)
    return vectors * images[0].nbytes + 2 * activations
