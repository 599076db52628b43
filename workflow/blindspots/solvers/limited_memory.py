"""L-BFGS for one large smooth problem, whose curvature pairs may be handed on to another problem that resembles it.

It is Algorithm 7.5 of Nocedal & Wright, *Numerical Optimization* (2nd edition). Its direction comes from the compact form
of the inverse Hessian (Byrd, Nocedal & Schnabel, *Representations of quasi-Newton matrices*, 1994, Theorem 2.2): all that
is done to long vectors is a product of all pairs with the gradient, and a sum of all pairs. Both are done block by block,
by any number of threads.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import solve_triangular
from torch import Tensor

_BLOCKS = 8  # that a long vector is worked on in, so that the sums do not depend on the number of threads
_SUFFICIENT, _CURVATURE = 1e-4, 0.9  # the constants of the Wolfe conditions
_TRIALS = 20  # steps along one direction
_STALLED = 10  # iterations without a lower loss, which rounding lets pass, are the end
_RESOLUTION = {torch.float32: 1e-7, torch.float64: 1e-15}  # of a loss, relative: what is less is rounding

Function = Callable[[Tensor], tuple[float, Tensor]]  # of a vector: the value, and the gradient

CONVERGED = "no component of the gradient exceeds the tolerance"
NO_DESCENT = "no step lowers the loss any further in the arithmetic's precision"
NOT_FINITE = "the loss or its gradient is not finite"
OUT_OF_ITERATIONS = "as many iterations as are allowed"


class Point(NamedTuple):
    """A vector (n,) with a function's value and gradient (n,) there."""

    values: Tensor
    loss: float
    gradient: Tensor

    @classmethod
    def of(cls, function: Function, values: Tensor) -> "Point":
        return cls(values, *function(values))


class Minimum(NamedTuple):
    """Where a minimisation ended, and why: one of the messages above."""

    point: Point
    iterations: int
    message: str


class Pairs:
    """The newest curvature pairs, s of steps and y of what these changed the gradient by; of vectors like `like`, (n,).

    most: pairs that are kept. each: computes the blocks, as `map` or `Workers.map` does.
    """

    def __init__(self, most: int, like: Tensor, each: Callable = map):
        self._most, self._each = most, each
        self._rows = like.new_zeros(2 * most, len(like))  # s and y by turns
        self._blocks = self._rows.split(-(-len(like) // _BLOCKS), dim=1)
        self._sy, self._yy = np.zeros((2, most, most))  # inner products sᵀy and yᵀy
        self._slots: list[int] = []  # of the pairs, the oldest first

    def start(self, gradient: Tensor) -> None:
        """Begin at a point with this gradient."""
        self._gradient, self._products = gradient, self._times(gradient)

    def direction(self) -> Tensor:
        """-H g: towards the minimum, as far as the pairs tell."""
        g = self._gradient
        sg, yg = self._products[self._slots].T
        if not self._slots:
            self._yd = np.zeros(self._most)
            return g * (-1 / max(1.0, g.norm().item()))
        here = np.ix_(self._slots, self._slots)
        sy, yy = self._sy[here], self._yy[here]
        scale = sy[-1, -1] / yy[-1, -1]
        along_y = solve_triangular(sy, sg)  # of sᵀy only those of a step with what came after it
        bent = yg - yy @ along_y
        along_s = solve_triangular(sy, sy.diagonal() * along_y - scale * bent, trans="T")
        self._yd = np.zeros(self._most)
        self._yd[self._slots] = -scale * bent - sy.T @ along_s
        weights = np.zeros((self._most, 2))
        weights[self._slots] = np.stack([-along_s, scale * along_y], axis=1)
        return self._sum(weights).sub_(g, alpha=scale)

    def step(self, length: float, direction: Tensor, gradient: Tensor) -> None:
        """Go on to where `length` times `direction` led, and keep the pair if the curvature along it is positive."""
        s, y = direction * length, gradient - self._gradient
        products = self._times(gradient)
        changes = (products - self._products).T
        self._gradient, self._products = gradient, products
        sy = _dot(s, y)
        if not sy > 1e-10 * s.norm().item() * y.norm().item():
            return
        slot = self._slots.pop(0) if len(self._slots) == self._most else len(self._slots)
        self._slots.append(slot)
        self._rows[2 * slot], self._rows[2 * slot + 1] = s, y
        self._sy[slot], self._sy[:, slot] = length * self._yd, changes[0]
        self._yy[slot], self._yy[:, slot] = changes[1], changes[1]
        self._sy[slot, slot], self._yy[slot, slot] = sy, _dot(y, y)
        products[slot] = _dot(s, gradient), _dot(y, gradient)

    def forget(self) -> None:
        self._slots = []

    def _times(self, vector: Tensor) -> np.ndarray:
        """The inner products of every s and every y with the vector, (most, 2)."""
        used = 2 * len(self._slots)
        parts = zip(self._blocks, vector.split(self._blocks[0].shape[1]), strict=True)
        products = sum(self._each(lambda part: torch.mv(part[0][:used], part[1]), parts))
        found = np.zeros((self._most, 2))
        found.reshape(-1)[:used] = products.double().cpu()
        return found

    def _sum(self, weights: np.ndarray) -> Tensor:
        """The sum of every s and every y with its weight of (most, 2)."""
        used = 2 * len(self._slots)
        factors = torch.from_numpy(weights).flatten()[:used].to(self._rows)
        return torch.cat(list(self._each(lambda block: factors @ block[:used], self._blocks)))


def minimise(
    function: Function,
    start: Point,
    pairs: Pairs,
    *,
    tolerance: float,
    max_iterations: int,
    after: Callable[[Point], None] = lambda point: None,
) -> Minimum:
    """The minimum of `function` that L-BFGS comes to, to where no component of the gradient exceeds `tolerance`.

    start: with the function's value and gradient there. pairs: of earlier minimisations or none; this one's are added.
    after: called after each iteration with the point that it came to, which is the one that was evaluated last.
    """
    point, lowest, stalled = start, start.loss, 0
    pairs.start(point.gradient)
    for iteration in range(max_iterations + 1):
        if (message := ended(point, tolerance)) or iteration == max_iterations:
            return Minimum(point, iteration, message or OUT_OF_ITERATIONS)
        further = _searched(function, point, pairs) if stalled < _STALLED else None
        if further is None:
            return Minimum(point, iteration, NO_DESCENT)
        point, stalled = further, 0 if further.loss < lowest else stalled + 1
        lowest = min(lowest, point.loss)
        after(point)


def ended(point: Point, tolerance: float) -> str | None:
    """Why a minimisation goes no further than this point, or None."""
    largest = point.gradient.abs().max().item()
    if not math.isfinite(point.loss + largest):
        return NOT_FINITE
    return CONVERGED if largest <= tolerance else None


def _searched(function: Function, point: Point, pairs: Pairs) -> Point | None:
    """The next point, if there is one; where the pairs lead to none, without them."""
    for _ in range(2):
        direction = pairs.direction()
        slope = _dot(point.gradient, direction)
        if slope < 0 and (found := _line_search(function, point, slope, direction)):
            length, further = found
            pairs.step(length, direction, further.gradient)
            return further
        pairs.forget()
    return None


def _line_search(
    function: Function, start: Point, slope: float, direction: Tensor
) -> tuple[float, Point] | None:
    """A length that satisfies the weak Wolfe conditions, with the point there; or None.

    Between a length that is too short and one that is too long, the next is where a parabola has its minimum.
    """
    slack = _RESOLUTION[direction.dtype] * abs(start.loss)
    short, loss, falls = 0.0, start.loss, slope
    long, length = math.inf, 1.0
    for _ in range(_TRIALS):
        point = Point.of(function, start.values + length * direction)
        along = _dot(point.gradient, direction)
        if not (point.loss <= start.loss + _SUFFICIENT * length * slope + slack and math.isfinite(along)):
            long = length
            width = long - short
            rise = point.loss - loss - falls * width
            least = -falls * width**2 / (2 * rise) if math.isfinite(rise) and rise > 0 else 0.0
            length = short + min(max(least, 0.1 * width), 0.6 * width)
        elif along < _CURVATURE * slope:
            short, loss, falls = length, point.loss, along
            length = 2.5 * length if long == math.inf else (short + long) / 2
        else:
            return length, point
    return None


def _dot(a: Tensor, b: Tensor) -> float:
    return torch.dot(a, b).item()
