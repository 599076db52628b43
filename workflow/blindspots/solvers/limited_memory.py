"""L-BFGS for one large smooth problem.

The curvature pairs of one problem can be passed on to a similar problem.
The method is Algorithm 7.5 of Nocedal & Wright, *Numerical Optimization* (2nd edition).
The direction comes from the compact form of the inverse Hessian.
Reference: Byrd, Nocedal & Schnabel, *Representations of quasi-Newton matrices*, 1994, Theorem 2.2.
This form needs two operations on long vectors: the product of all pairs with the gradient, and a weighted sum
of all pairs.
Both are computed block by block, by any number of threads.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import solve_triangular
from torch import Tensor

# Long vectors are processed in this number of blocks, so that sums do not depend on the number of threads.
_BLOCKS = 8
# These are the constants of the Wolfe conditions.
_SUFFICIENT, _CURVATURE = 1e-4, 0.9
# This is the largest number of trial steps along one direction.
_TRIALS = 20
# A minimisation ends after this number of iterations without a lower loss.
# Such iterations are possible because the line search allows for rounding errors.
_STALLED = 10
# Relative differences of a loss below this resolution are rounding errors.
_RESOLUTION = {torch.float32: 1e-7, torch.float64: 1e-15}

# A function of a vector (n,) that returns its value and its gradient (n,).
Function = Callable[[Tensor], tuple[float, Tensor]]

CONVERGED = "no component of the gradient exceeds the tolerance"
NO_DESCENT = "no step lowers the loss any further in the arithmetic's precision"
NOT_FINITE = "the loss or its gradient is not finite"
OUT_OF_ITERATIONS = "as many iterations as are allowed"


class Point(NamedTuple):
    """A vector with the value and the gradient of a function there.

    Attributes:
        values: The vector, (n,).
        loss: The value of the function.
        gradient: The gradient of the function, (n,).
    """

    values: Tensor
    loss: float
    gradient: Tensor

    @classmethod
    def of(cls, function: Function, values: Tensor) -> "Point":
        """Evaluate a function at a vector.

        Args:
            function: The function, which returns its value and gradient.
            values: The vector, (n,).
        Returns:
            The vector with the value and the gradient there.
        """
        return cls(values, *function(values))


class Minimum(NamedTuple):
    """The end of a minimisation.

    Attributes:
        point: The last point.
        iterations: The number of iterations.
        message: The reason for the end: CONVERGED, NO_DESCENT, NOT_FINITE or OUT_OF_ITERATIONS.
    """

    point: Point
    iterations: int
    message: str


class Pairs:
    """The newest curvature pairs (s, y) of a minimisation.

    s is a step, and y is the change of the gradient over this step.

    Args:
        most: The largest number of pairs that are kept.
        like: A vector, (n,), whose size, dtype and device all vectors share.
        each: The function that maps over the blocks, such as `map` or `Workers.map`.
    """

    def __init__(self, most: int, like: Tensor, each: Callable = map):
        self._most, self._each = most, each
        self._rows = like.new_zeros(2 * most, len(like))  # The rows s and y alternate.
        self._blocks = self._rows.split(-(-len(like) // _BLOCKS), dim=1)
        self._sy, self._yy = np.zeros((2, most, most))  # These are the inner products sᵀy and yᵀy.
        self._slots: list[int] = []  # These are the places of the pairs, with the oldest pair first.

    def start(self, gradient: Tensor) -> None:
        """Begin a minimisation, with the present pairs.

        Args:
            gradient: The gradient at the first point, (n,).
        """
        self._gradient, self._products = gradient, self._times(gradient)

    def direction(self) -> Tensor:
        """Compute the L-BFGS direction -H g at the current point.

        H is the approximation of the inverse Hessian by the pairs, and g is the gradient.

        Returns:
            The direction, (n,). Without pairs it is -g / max(1, ‖g‖).
        """
        g = self._gradient
        sg, yg = self._products[self._slots].T
        if not self._slots:
            self._yd = np.zeros(self._most)
            return g * (-1 / max(1.0, g.norm().item()))
        here = np.ix_(self._slots, self._slots)
        sy, yy = self._sy[here], self._yy[here]
        scale = sy[-1, -1] / yy[-1, -1]
        # Only the upper triangle of sᵀy is used. Its entries pair s with the same or a later y.
        along_y = solve_triangular(sy, sg)
        bent = yg - yy @ along_y
        along_s = solve_triangular(sy, sy.diagonal() * along_y - scale * bent, trans="T")
        self._yd = np.zeros(self._most)
        self._yd[self._slots] = -scale * bent - sy.T @ along_s
        weights = np.zeros((self._most, 2))
        weights[self._slots] = np.stack([-along_s, scale * along_y], axis=1)
        return self._sum(weights).sub_(g, alpha=scale)

    def step(self, length: float, direction: Tensor, gradient: Tensor) -> None:
        """Move to the next point, and keep the pair of this step if the curvature along the step is positive.

        If the number of pairs is at its limit, the oldest pair is replaced.

        Args:
            length: The length of the step, as a multiple of the direction.
            direction: The direction of the step, (n,), as last returned by `direction`.
            gradient: The gradient at the new point, (n,).
        """
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
        """Drop all pairs."""
        self._slots = []

    def _times(self, vector: Tensor) -> np.ndarray:
        """The inner products of each s and each y with the vector (n,), as an array (most, 2)."""
        used = 2 * len(self._slots)
        parts = zip(self._blocks, vector.split(self._blocks[0].shape[1]), strict=True)
        products = sum(self._each(lambda part: torch.mv(part[0][:used], part[1]), parts))
        found = np.zeros((self._most, 2))
        found.reshape(-1)[:used] = products.double().cpu()
        return found

    def _sum(self, weights: np.ndarray) -> Tensor:
        """The sum (n,) of all s and all y with the weights (most, 2)."""
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
    """Minimise a function by L-BFGS until no component of the gradient exceeds the tolerance.

    Args:
        function: The function, which returns its value and gradient.
        start: The first point, with the value and the gradient of the function there.
        pairs: The curvature pairs of earlier minimisations, or no pairs. The pairs of this minimisation are
            added.
        tolerance: The largest absolute value of a component of the gradient at a minimum.
        max_iterations: The largest number of iterations.
        after: A function that is called after each iteration with its point. This point is the one that was
            evaluated last.
    Returns:
        The last point, the number of iterations and the reason for the end.
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
    """Check whether a minimisation ends at a point.

    Args:
        point: The point.
        tolerance: The largest absolute value of a component of the gradient at a minimum.
    Returns:
        The reason for the end, NOT_FINITE or CONVERGED, or None if the minimisation goes on.
    """
    largest = point.gradient.abs().max().item()
    if not math.isfinite(point.loss + largest):
        return NOT_FINITE
    return CONVERGED if largest <= tolerance else None


def _searched(function: Function, point: Point, pairs: Pairs) -> Point | None:
    """The next point, or None.

    If the search with the pairs fails, it is repeated without them.
    """
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
    """A step length that satisfies the weak Wolfe conditions, with the point there, or None.

    After a length that is too long, the next length is the minimum of a parabola.
    The minimum is clipped to lie between the largest length that is too short and the one that is too long.
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
    """The inner product of two vectors (n,), as a number."""
    return torch.dot(a, b).item()
