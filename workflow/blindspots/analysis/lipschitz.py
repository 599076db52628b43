"""Upper Lipschitz constants of whole networks in the 2-norm, layer by layer (Section 4.3), and what examples make of them.

A network is traced and followed node by node from its input: the constant of a composition is at most the product of the
constants of its parts, that of a sum at most their sum. Biases do not matter.
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

    name:      its dotted name in the network.
    label:     as in Table 5: 'Conv. 1', 'FC. 1', counted in order of execution; grouped convolutions count with the others.
    size:      as in Table 5: channels × kernel height × kernel width × filters (and groups), or inputs × outputs.
    bounds:    λ₋ and λ₊, of a convolution those of the circular one on `spectra.padded_grid`.
    norm:      ‖W‖ of the map itself, with its own padding; at most bounds.upper, and that itself for inputs × outputs.
    residual:  the error of `norm`, see `spectra.Norm`; 0 where it is exact.
    lipschitz: an upper Lipschitz constant from the network's input to this map's output, with all that lies between.
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
    """The linear maps of a network in evaluation mode, on the CPU, in order of execution; inputs are (b, *image_shape).

    Max pooling has the constant 1 where its windows do not overlap. The paper calls all max pooling contractive, but a pixel
    that is the largest in several windows changes as many outputs: where one pixel is in up to m windows the constant is √m,
    and reached. That is 2 for windows of 3 × 3 at a stride of 2, as in AlexNet.

    seed: for the random vector that the norm of a padded convolution is iterated from, and for an image of which the trace
          has to say what the network says.

    A module with a method `lipschitz()` answers for itself and all in it, with its constant as a number. Raises ValueError
    for a node of which no constant is known, and for a layer that is used twice.
    """
    if any(module.training for module in network.modules()):
        raise ValueError("the network is in training mode: its constants are those of evaluation mode")
    try:
        graph = _Tracer().trace(network)
    except fx.proxy.TraceError as error:
        raise ValueError(
            f"the network cannot be traced ({error}): put what depends on values into a module with a method lipschitz()"
        ) from error
    follow = LipschitzInterpreter(fx.GraphModule(network, graph), seed)
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(1, *image_shape, dtype=next(network.parameters()).dtype, generator=generator)
    if not torch.allclose(follow.run(image.clone()), network(image.clone())):
        raise ValueError(
            "the network's trace computes something else: does it add in place to a tensor that has another name?"
        )
    return follow.maps


@torch.no_grad()
def instabilities(
    network: nn.Module, names: Sequence[str], originals: Tensor, adversarial: Tensor, batch: int
) -> dict[str, Tensor]:
    """‖φ_k(x + r) - φ_k(x)‖₂ / ‖r‖₂ at the output of each named layer: (n,) float64, NaN where r = 0.

    names:                  dotted names of layers, as in `LinearMap.name`.
    originals, adversarial: x and x + r, (n, *image_shape).
    batch:                  so many pairs at once; no more than one layer's outputs of these are kept.
    """
    distances: dict[str, list[Tensor]] = {name: [] for name in names}

    def measure(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        # At once, as an activation in place may follow.
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
    """√m for the most windows that one pixel is in: each window's maximum moves by at most one of its pixels' change."""
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
    """The norm of a map that is the product of one along each axis: the product of theirs."""
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


# From a module and the sizes (1, ...) of its input and output to its constant. A subclass with a forward of its own is not
# meant.
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
    """The type among those with a rule whose forward the module has."""
    kinds = (
        kind
        for kind in (*_MODULES, *_LINEAR)
        if isinstance(module, kind) and type(module).forward is kind.forward
    )
    return next(kinds, None)


class _Tracer(fx.Tracer):
    """Takes as a whole what there is a rule for."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (
            hasattr(m, "lipschitz")
            or _kind(m) is not None
            or super().is_leaf_module(m, module_qualified_name)
        )


class LipschitzInterpreter(fx.Interpreter):
    """Runs a network on one image, for the sizes, and has each node's constant with respect to the input."""

    def __init__(self, module: fx.GraphModule, seed: int):
        super().__init__(module)
        self.extra_traceback = False  # a message of ours says all
        self.maps: list[LinearMap] = []
        self._constants: dict[fx.Node, float] = {}
        self._seed = seed

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self._constants[n] = self._followed(n, result)
        return result

    def _followed(self, node: fx.Node, result: Any) -> float:
        """The constant from the input to a node's result."""
        if node.op == "placeholder":
            return 1.0
        before = [self._constants[source] for source in node.all_input_nodes]
        if not any(before) or (node.op, node.target) == ("call_method", "size"):
            return 0.0  # it does not depend on the input's values
        if node.op == "output":
            return max(before)
        if node.op == "call_module" and len(before) == 1 and isinstance(result, Tensor):
            return self._module(node, before[0], result)
        if node.op == "call_function" and node.target in _SUMS and not node.kwargs:
            return sum(self._term(term, result) for term in node.args if isinstance(term, fx.Node))
        known = {"call_function": _FUNCTIONS, "call_method": _METHODS}.get(node.op, {})
        if node.target in known:
            return known[node.target] * sum(before)  # all but one of them are sizes
        kind = type(self.fetch_attr(str(node.target))) if node.op == "call_module" else node.target
        raise _unknown(node, getattr(kind, "__name__", str(kind)))

    def _term(self, term: fx.Node, result: Tensor) -> float:
        """The constant of a term of a sum, whose values count as often as they are broadcast."""
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
    """The grid on which the circular convolution bounds the layer; raises ValueError where there is none."""
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
