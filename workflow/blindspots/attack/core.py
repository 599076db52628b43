"""Minimum-distortion attacks: D(x, l) of Section 4.1, the nearest image to x that a network classifies as l.

The attacks work on any network that returns logits.
"""

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

# Both methods with their default options keep at most 40 arrays of an image's size for each image.
# A longer L-BFGS history needs more.
_VECTORS = 40
# Bytes. On a CPU a larger batch is no faster.
_NEAR_THE_CACHE = 64 * 2**20
# A batch of fewer images is slower.
_AT_LEAST = 32


class Adversarial(NamedTuple):
    """The result of an attack on b images.

    For "lbfgs", the residual is the norm of the projected gradient of the penalised problem, relative to the
    norm of the penalty's gradient. For "sqp" and `refine`, it is the length of the last quadratic step
    relative to ‖r‖. That residual measures the optimality (KKT) conditions of min ‖r‖ itself.

    Attributes:
        images: The adversarial images x + r, (b, ...). An image is the original where no example was found.
        targets: The target classes, (b,), integers.
        success: Whether an adversarial example was found, (b,), bool.
        distortion: The root mean square of r, (b,), in the units of the pixels. NaN without success.
        c: The penalty weight with which the example was found, (b,). NaN for "sqp", for an image that needed
            no search, and without success.
        residual: The distance from optimality, (b,), which is 0 at a minimum. NaN where there was no step,
            and without success.
        gradient_evaluations: The number of gradients that each image needed, (b,).
        status: How the search ended, (b,), as keys of `STATUS`.
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
    """Find the nearest images that a model classifies as the targets.

    This approximates D(x, l) (Section 4.1). A minimum is a local one, the best that the search found. Success
    and distortion are measured on the resulting images, independently of the search.

    Args:
        model: A module, or a function of images, that returns logits (b, k). An image's logits do not depend
            on the other images of the batch. The model is in evaluation mode, on the images' device and of
            their dtype. It does not clamp its images, because that loses the gradient at the bounds. The
            attack keeps the images within the bounds.
        images: The original images, (b, ...), float32 or float64, within the bounds. In float64 the results
            are the same on every device. For the paper's procedure this needs LBFGS(rounded=True).
        targets: The target classes, (b,), integers, or the name of a policy that chooses them. "random"
            chooses uniformly, by the seed. "second" chooses the most likely other class. "nearest" chooses
            the other class with the smallest distortion, which costs k - 1 times the work.
        method: "sqp" finds the nearest minima that we know how to find. "lbfgs" is the paper's procedure. An
            `SQP` or `LBFGS` object sets the options, as in method=SQP(exploration=0).
        labels: The true classes, (b,), integers. A policy never chooses the class that the model predicts. It
            does not choose the label either, unless the model has only two classes.
        seed: The seed of the "random" policy, an integer of 64 bits.
        bounds: The smallest and the largest pixel value, which define the box.
        margin: The lead in logits that the target needs over all other classes for a success. Because of it,
            rounding does not undo a success on another device or with another batch size.
        batch: The number of images in a batch, which limits the memory. By default it is as large as fits.
        threads: The number of batches that are processed at the same time on a CPU, one thread for each, as
            far as they fit into its memory. It does not change the results, provided that the model keeps no
            state between calls.
        processes: Whether to use processes, which are copies of this one, in place of threads. Processes are
            faster (see `blindspots.parallel`).
        report: A function that is called after each batch with a message and its values, like a logger's
            `info`.
    Returns:
        The adversarial images and the measurements of them, for b images.
    Raises:
        ValueError: If no attack can be made on the input.
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
        # Each pair is an image and one of its allowed targets.
        pairs = allowed[part].nonzero().split(parts.size)
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
    """Move adversarial images of any origin to local minima of the distortion.

    No image ends further from its original than it began.

    Args:
        model: As for `minimum_distortion`.
        images: The original images, (b, ...), float32 or float64, within the bounds.
        adversarial: The adversarial images to start from, (b, ...), of the same dtype and within the bounds.
        targets: The target classes, (b,), integers.
        method: "sqp", or an `SQP` object with the options.
        bounds: As for `minimum_distortion`.
        margin: As for `minimum_distortion`.
        batch: As for `minimum_distortion`.
        threads: As for `minimum_distortion`.
        processes: As for `minimum_distortion`.
        report: As for `minimum_distortion`.
    Returns:
        The refined images and the measurements of them. An image that the model does not classify as its
        target is replaced by the original, without success.
    Raises:
        ValueError: If the method is not SQP, or if no attack can be made on the input.
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
    """The number of arrays of an image's size that a method keeps for each image."""
    if isinstance(options, LBFGS):
        # L-BFGS keeps its pairs and a step. Finished images are removed by a copy, which doubles that.
        of_method = 2 * (2 * options.history + 1)
    else:
        competitors = min(options.competitors_after(options.max_rounds - 1), classes - 1)
        # These are the competitors' gradients and the intermediate arrays of a projection.
        of_method = 3 * competitors
    return max(_VECTORS, 15 + of_method)


def _search(problem: Problem, options: SQP | LBFGS) -> Found:
    return penalty.search(problem, options) if isinstance(options, LBFGS) else sqp.nearest(problem, options)


def _chosen(model, images, policy, labels, classes, seed, batch) -> tuple[Tensor | None, Tensor | None]:
    """The targets that a policy chooses, (b,), or for "nearest" a mask of the allowed classes, (b, k)."""
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
    """The number of images in a batch, and the number of threads that process batches at the same time."""

    size: int
    threads: int

    @classmethod
    def of(
        cls, model: nn.Module, images: Tensor, batch: int | None, threads: int, vectors: int = _VECTORS
    ) -> "_Parts":
        """Choose the batch size, if none is given, and the number of threads.

        The batch fits into half of the free memory. On a CPU it is no larger than the fastest size. The size
        changes the rounding. It is a power of two, so that it hardly depends on other running programs. It
        never depends on the threads. Their number is limited so that their batches fit into half of the free
        memory.
        """
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
    """Run a search on the images that do not have their target's class yet, and measure the outcome.

    Args:
        problem: The problem of b images.
        original: The original images, (b, ...).
        search: A function of a subset of the problem and of its rows (r,) in the whole.
        todo: Which images to search for, (b,), bool. By default all.
    Returns:
        The result for all b images.
    """
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
            # This happens if the model rounds, takes a root at 0, or has only inactive or saturated units.
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
    """Select each image's nearest result among its allowed classes.

    Args:
        every: The results of all allowed pairs, in the order of the mask's true elements.
        allowed: The classes that each image may become, (b, k), bool.
    Returns:
        The result for b images, with the gradient evaluations of all their pairs.
    """
    size = every.distortion.nan_to_num(torch.inf)
    sizes = size.new_full(allowed.shape, torch.inf).masked_scatter(allowed, size)
    first = allowed & (sizes == sizes.amin(1, keepdim=True))
    nearest = (first & (first.cumsum(1) == 1))[allowed]
    evaluations = (
        torch.zeros_like(allowed, dtype=torch.long).masked_scatter(allowed, every.gradient_evaluations).sum(1)
    )
    return Adversarial(*(values[nearest] for values in every))._replace(gradient_evaluations=evaluations)


def _bytes_in_work(model: nn.Module, images: Tensor, vectors: int = _VECTORS) -> int:
    """The memory in bytes that one image needs, with the activations that a gradient needs."""
    kept = []
    own = {parameter.data_ptr() for parameter in model.parameters()}
    with (
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t),
    ):
        model(images[:1].detach().clone().requires_grad_())
    activations = sum(tensor.nbytes for tensor in kept if tensor.data_ptr() not in own)
    return vectors * images[0].nbytes + 2 * activations
