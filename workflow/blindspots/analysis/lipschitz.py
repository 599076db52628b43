"""Upper Lipschitz constants of whole networks in the 2-norm, layer by layer (Section 4.3).

The module also measures how much adversarial examples change the output of each layer.
A network is traced and followed node by node from its input.
The constant of a composition is at most the product of its parts' constants.
The constant of a sum is at most the sum of its terms' constants.
Biases do not matter.
"""

import operator
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, fx, nn

from blindspots.analysis import spectra
from blindspots.analysis.spectra import Bounds
from blindspots.networks import convolution
from blindspots.networks.dropout import Dropout


class LinearMap(NamedTuple):
    """A convolution or fully connected layer.

    Attributes:
        name: The dotted name of the layer in the network.
        label: The label as in Table 5, such as "Conv. 1" or "FC. 1", counted in order of execution.
            Grouped convolutions count with the others.
        size: The size as in Table 5.
            It is channels × kernel height × kernel width × filters (and groups), or inputs × outputs.
        bounds: λ₋ and λ₊. Those of a convolution refer to the circular one on `spectra.padded_grid`.
        norm: ‖W‖ of the map itself, with its own padding. It is at most bounds.upper.
            For a fully connected layer it is bounds.upper.
        residual: The error of `norm`, see `spectra.Norm`. It is 0 where `norm` is exact.
        lipschitz: An upper Lipschitz constant from the network's input to this map's output.
            It includes all layers in between.
    """

    name: str
    label: str
    size: str
    bounds: Bounds
    norm: float
    residual: float
    lipschitz: float


@torch.no_grad()
def linear_maps(network: nn.Module, image_shape: Sequence[int], seed: int) -> list[LinearMap]:
    """Compute the constants of a network's linear maps in evaluation mode, on the CPU.

    Max pooling has the constant 1 if its windows do not overlap.
    The paper calls all max pooling contractive.
    But a pixel that is the largest in several windows changes as many outputs.
    If one pixel is in up to m windows, the constant is √m, and it is attained.
    It is 2 for windows of 3 × 3 with a stride of 2, as in AlexNet.

    A module with a method `lipschitz()` gives its own constant as a number.
    This constant covers everything in the module.

    Args:
        network: The network, in evaluation mode.
        image_shape: The shape of one image. The network's inputs are (b, *image_shape).
        seed: The seed of the random vector that starts the iteration for a padded convolution's norm.
            It also gives a random image, on which the trace and the network must agree.
    Returns:
        The linear maps in order of execution.
    Raises:
        ValueError: If the network is in training mode, or if it cannot be traced correctly.
            Also if a node has no known constant, or if a layer is used twice.
    """
    if any(module.training for module in network.modules()):
        raise ValueError("the network is in training mode: its constants are those of evaluation mode")
    try:
        graph = _Tracer().trace(network)
    except fx.proxy.TraceError as error:
        raise ValueError(
            f"the network cannot be traced ({error}): "
            "put what depends on values into a module with a method lipschitz()"
        ) from error
    follow = LipschitzInterpreter(fx.GraphModule(network, graph), seed)
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(1, *image_shape, dtype=next(network.parameters()).dtype, generator=generator)
    if not torch.allclose(follow.run(image.clone()), network(image.clone())):
        raise ValueError(
            "the network's trace computes something else: "
            "does it add in place to a tensor that has another name?"
        )
    return follow.maps


@torch.no_grad()
def instabilities(
    network: nn.Module, names: Sequence[str], originals: Tensor, adversarial: Tensor, batch: int
) -> dict[str, Tensor]:
    """Compute ‖φ_k(x + r) - φ_k(x)‖₂ / ‖r‖₂ at the output of each named layer.

    Args:
        network: The network.
        names: The dotted names of the layers, as in `LinearMap.name`.
        originals: The images x, (n, *image_shape).
        adversarial: The images x + r, (n, *image_shape).
        batch: The number of pairs that are computed at once. Only one layer's outputs of a batch are kept.
    Returns:
        The ratios of each layer by its name, (n,) float64, NaN where r = 0.
    """
    distances: dict[str, list[Tensor]] = {name: [] for name in names}

    def measure(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        # The distances are computed immediately, because an in-place activation may follow.
        return lambda layer, inputs, output: distances[name].append(_distances(*output.chunk(2)))

    with ExitStack() as hooks:
        for name in names:
            hooks.enter_context(network.get_submodule(name).register_forward_hook(measure(name)))
        for x, distorted in zip(originals.split(batch), adversarial.split(batch), strict=True):
            network(torch.cat([x, distorted]))
    size = _distances(originals, adversarial)
    return {name: torch.cat(parts) / size for name, parts in distances.items()}


def _distances(one: Tensor, other: Tensor) -> Tensor:
    return torch.linalg.vector_norm((other - one).flatten(1), dim=1, dtype=torch.float64)


def _max_pool(pool: nn.MaxPool2d, before: torch.Size, after: torch.Size) -> float:
    """Return √m for the largest number m of windows that one pixel is in.

    Each window's maximum changes by at most the change of one of its pixels.
    """
    most = 1
    for axis in (0, 1):
        size, step, margin, spread = (
            value if isinstance(value, int) else value[axis]
            for value in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
        )
        windows, pixels = after[axis - 2], before[axis - 2]
        places = step * torch.arange(windows)[:, None] + spread * torch.arange(size) - margin
        most *= int(places[(places >= 0) & (places < pixels)].bincount().max())
    return most**0.5


def _average_pool(pool: nn.AvgPool2d, before: torch.Size, after: torch.Size) -> float:
    if pool.divisor_override is not None:
        raise ValueError("average pooling with a divisor of its own has no rule")

    def along(axis: int) -> Callable[[Tensor], Tensor]:
        size, step, margin = (
            v if isinstance(v, int) else v[axis] for v in (pool.kernel_size, pool.stride, pool.padding)
        )
        return lambda x: F.avg_pool1d(x, size, step, margin, pool.ceil_mode, pool.count_include_pad)

    return _separable(along, before)


def _adaptive_average_pool(pool: nn.AdaptiveAvgPool2d, before: torch.Size, after: torch.Size) -> float:
    return _separable(lambda axis: lambda x: F.adaptive_avg_pool1d(x, after[axis - 2]), before)


def _separable(along: Callable[[int], Callable[[Tensor], Tensor]], before: torch.Size) -> float:
    """Return the norm of a map that is the product of one map along each axis: the product of their norms."""
    matrices = (
        along(axis)(torch.eye(before[axis - 2], dtype=torch.float64)[:, None])[:, 0] for axis in (0, 1)
    )
    rows, columns = (spectra.fully_connected(matrix).upper for matrix in matrices)
    return rows * columns


def _batch_norm(layer: nn.BatchNorm2d, before: torch.Size, after: torch.Size) -> float:
    if layer.running_var is None:
        raise ValueError("batch normalisation by the batch's own statistics has no constant")
    scale = (layer.running_var.double() + layer.eps).rsqrt()
    return (scale if layer.weight is None else scale * layer.weight.double()).abs().max().item()


def _constant(value: float) -> Callable[[nn.Module, torch.Size, torch.Size], float]:
    return lambda module, before, after: value


# Each function maps a module and the sizes (1, ...) of its input and output to the module's constant.
# A subclass with its own forward method has no rule here.
_MODULES: dict[type[nn.Module], Callable[[Any, torch.Size, torch.Size], float]] = {
    **dict.fromkeys((nn.ReLU, nn.ReLU6, nn.Tanh, nn.Dropout, Dropout, nn.Identity), _constant(1.0)),
    **dict.fromkeys((nn.Flatten, nn.Unflatten, nn.ZeroPad2d), _constant(1.0)),
    nn.Sigmoid: _constant(0.25),
    nn.LeakyReLU: lambda module, before, after: max(1.0, abs(module.negative_slope)),
    nn.BatchNorm2d: _batch_norm,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: _adaptive_average_pool,
}
_LINEAR = (nn.Linear, nn.Conv2d, *convolution.KINDS)
_FUNCTIONS = {torch.flatten: 1.0, torch.relu: 1.0, F.relu: 1.0, torch.tanh: 1.0, torch.sigmoid: 0.25}
_METHODS = {"flatten": 1.0, "view": 1.0, "reshape": 1.0}
_SUMS = (operator.add, operator.iadd, torch.add)


def _kind(module: nn.Module) -> type[nn.Module] | None:
    """Return the type that has a rule and whose forward method the module has, or None."""
    kinds = (
        kind
        for kind in (*_MODULES, *_LINEAR)
        if isinstance(module, kind) and type(module).forward is kind.forward
    )
    return next(kinds, None)


class _Tracer(fx.Tracer):
    """A tracer that does not look into modules for which there is a rule."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (
            hasattr(m, "lipschitz")
            or _kind(m) is not None
            or super().is_leaf_module(m, module_qualified_name)
        )


class LipschitzInterpreter(fx.Interpreter):
    """An interpreter that runs a network on one image and computes each node's Lipschitz constant.

    The constants refer to the network's input. The image gives the sizes of the intermediate results.

    Args:
        module: The traced network.
        seed: The seed of the random vector that starts the iteration for a padded convolution's norm.
    Attributes:
        maps: The linear maps met so far, in order of execution.
    """

    def __init__(self, module: fx.GraphModule, seed: int):
        super().__init__(module)
        self.extra_traceback = False  # the error messages below suffice
        self.maps: list[LinearMap] = []
        self._constants: dict[fx.Node, float] = {}
        self._seed = seed

    def run_node(self, n: fx.Node) -> Any:
        """Run a node and compute its constant.

        Args:
            n: The node.
        Returns:
            The result of the node.
        Raises:
            ValueError: If no constant of the node is known, or if a linear layer is used twice.
        """
        result = super().run_node(n)
        self._constants[n] = self._followed(n, result)
        return result

    def _followed(self, node: fx.Node, result: Any) -> float:
        """Return the constant from the input to a node's result."""
        if node.op == "placeholder":
            return 1.0
        before = [self._constants[source] for source in node.all_input_nodes]
        if not any(before) or (node.op, node.target) == ("call_method", "size"):
            return 0.0  # the result does not depend on the input's values
        if node.op == "output":
            return max(before)
        if node.op == "call_module" and len(before) == 1 and isinstance(result, Tensor):
            return self._module(node, before[0], result)
        if node.op == "call_function" and node.target in _SUMS and not node.kwargs:
            return sum(self._term(term, result) for term in node.args if isinstance(term, fx.Node))
        known = {"call_function": _FUNCTIONS, "call_method": _METHODS}.get(node.op, {})
        if node.target in known:
            return known[node.target] * sum(before)  # all arguments but one are sizes
        kind = type(self.fetch_attr(str(node.target))) if node.op == "call_module" else node.target
        raise _unknown(node, getattr(kind, "__name__", str(kind)))

    def _term(self, term: fx.Node, result: Tensor) -> float:
        """Return the constant of a term of a sum, whose values count as often as they are broadcast."""
        value = self.env[term]
        copies = result.numel() / value.numel() if isinstance(value, Tensor) else 1
        return self._constants[term] * copies**0.5

    def _module(self, node: fx.Node, before: float, result: Tensor) -> float:
        module, size = self.fetch_attr(str(node.target)), self.env[node.all_input_nodes[0]].shape
        if hasattr(module, "lipschitz"):
            return before * float(module.lipschitz())
        kind = _kind(module)
        try:
            if kind in _LINEAR:
                self.maps.append(self._linear(str(node.target), module, size, result.shape, before))
                return self.maps[-1].lipschitz
            if kind is not None:
                return before * _MODULES[kind](module, size, result.shape)
        except ValueError as error:
            raise ValueError(f"{node.target}: {error}") from error
        raise _unknown(node, type(module).__name__)

    def _linear(
        self, name: str, layer: nn.Module, before: torch.Size, after: torch.Size, constant: float
    ) -> LinearMap:
        if any(earlier.name == name for earlier in self.maps):
            raise ValueError("the layer is used twice, and has no one constant from the input")
        if isinstance(layer, nn.Linear):
            bounds = spectra.fully_connected(layer.weight)
            norm, kind = spectra.Norm(bounds.upper, 0.0), "FC"
            size = (layer.in_features, layer.out_features)
        else:
            bounds = spectra.convolution(
                layer.weight, _grid(layer, before, after), layer.stride, layer.dilation, layer.groups
            )
            norm, kind = spectra.zero_padded(layer, before[1:], self._seed), "Conv"
            size = (layer.in_channels, *layer.kernel_size, layer.out_channels)
        number = 1 + sum(earlier.label.startswith(kind) for earlier in self.maps)
        groups = getattr(layer, "groups", 1)
        printed = " × ".join(map(str, size)) + (f", {groups} groups" if groups > 1 else "")
        return LinearMap(name, f"{kind}. {number}", printed, bounds, *norm, constant * bounds.upper)


def _grid(layer: nn.Conv2d, before: torch.Size, after: torch.Size) -> Sequence[int]:
    """Return the grid on which the circular convolution bounds the layer.

    Raises:
        ValueError: If there is no such grid.
    """
    if layer.padding_mode == "zeros":
        return spectra.padded_grid(layer, before[1:])
    if layer.padding_mode != "circular":
        raise ValueError(
            f"padding_mode '{layer.padding_mode}' has no bound: only 'zeros' and 'circular' have"
        )
    if any(step * out > side for step, out, side in zip(layer.stride, after[2:], before[2:], strict=True)):
        raise ValueError(
            "its circular padding is so wide that outputs repeat, and the convolution's norm is no bound"
        )
    return before[2:]


def _unknown(node: fx.Node, kind: str) -> ValueError:
    return ValueError(
        f"no Lipschitz constant is known for node '{node.name}' ({node.op} of {kind}): "
        "put it into a module with a method lipschitz() that returns its constant"
    )
