"""Lipschitz constants of networks, and how unstable examples find their layers."""

import operator
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.autograd.functional import jacobian
from torchvision.models import alexnet

from blindspots.analysis.lipschitz import instabilities, linear_maps
from blindspots.networks import architectures


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def frozen(network, seed=0):
    """In float64 and evaluation mode, with random parameters and statistics."""
    network = network.double().eval().requires_grad_(False)
    for number, value in enumerate((*network.parameters(), *network.buffers())):
        if value.is_floating_point():
            value.copy_(random(*value.shape, seed=100 * seed + number))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            module.running_var.copy_(0.1 + module.running_var.square())
    return network


class Applied(nn.Module):
    """A function as a module, traced through."""

    def __init__(self, function, *parts):
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x):
        return self.function(x, *(part(x) for part in self.parts))


def outputs_of(module, image_shape):
    return module(torch.zeros(1, *image_shape, dtype=torch.float64)).numel()


def constant_of(module, image_shape):
    """Of anything, as that of an identity after it."""
    module = module.double().eval()
    identity = nn.Linear(
        outputs_of(module, image_shape), outputs_of(module, image_shape), bias=False, dtype=torch.float64
    )
    nn.init.eye_(identity.weight)
    (*_, last) = linear_maps(nn.Sequential(module, nn.Flatten(), identity).eval(), image_shape, seed=0)
    assert last.name == "2"
    return last.lipschitz


def slope(network, x):
    """The norm of the derivative at one image: what pairs nearby reach."""
    return torch.linalg.matrix_norm(
        jacobian(lambda image: network(image[None]).flatten(), x).flatten(1), 2
    ).item()


def residual(*layers):
    return Applied(operator.add, nn.Sequential(*layers))


# Every kind of module and each of the paper's networks, as networks small enough for their derivatives.
NETWORKS = {
    "softmax": (architectures.fully_connected((4, 5), [3], "sigmoid"), (4, 5)),
    "sigmoid": (architectures.fully_connected((4, 5), [8, 6, 3], "sigmoid"), (4, 5)),
    "tanh": (architectures.fully_connected((4, 5), [8, 3], "tanh"), (4, 5)),
    "conv": (architectures.convolutional((9, 8), 3, 3, 2, [6, 4], "relu", 0.5), (9, 8)),
    "strided": (
        nn.Sequential(nn.Conv2d(2, 4, 5, 3, 2), nn.ReLU6(), nn.Conv2d(4, 6, 3, 2, 1, groups=2)),
        (2, 11, 9),
    ),
    "padded": (
        nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(2, 3, 3, 2), nn.LeakyReLU(0.1)),
        (2, 6, 6),
    ),
    "normalised": (
        nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 2)),
        (2, 6, 6),
    ),
    "overlapping": (
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(18, 4)),
        (1, 9, 9),
    ),
    "circular": (nn.Conv2d(2, 3, 3, 2, 1, padding_mode="circular"), (2, 6, 4)),
    "residual": (
        nn.Sequential(nn.Conv2d(2, 3, 3), residual(nn.Conv2d(3, 3, 3, padding=1)), nn.Conv2d(3, 2, 1)),
        (2, 6, 6),
    ),
    "averaging": (
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.AvgPool2d(2, 1), nn.AdaptiveAvgPool2d(2), nn.Conv2d(2, 2, 1)),
        (1, 8, 8),
    ),
}


def network_of(name, seed=0):
    network, image_shape = NETWORKS[name]
    return frozen(nn.Sequential(network), seed), image_shape


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_no_pair_moves_a_layer_by_more_than_its_constant(name, seed):
    network, image_shape = network_of(name, seed)
    maps = linear_maps(network, image_shape, seed=0)
    x = random(20, *image_shape, seed=seed)
    jacobians = torch.stack(
        [jacobian(lambda image: network(image[None]).flatten(), one).flatten(1) for one in x]
    )
    worst = torch.linalg.svd(jacobians).Vh[:, 0].view_as(x)
    for r in (random(*x.shape, seed=1), 1e-3 * random(*x.shape, seed=2), 1e-5 * worst):
        measured = instabilities(network, [one.name for one in maps], x, x + r, batch=8)
        for one in maps:
            assert (measured[one.name] <= one.lipschitz * (1 + 1e-9)).all()


@pytest.mark.parametrize("name", ["softmax", "circular"])
def test_of_a_single_layer_the_constant_is_reached(name):
    network, image_shape = network_of(name)
    (only,) = linear_maps(network, image_shape, seed=0)
    assert (
        only.lipschitz == only.bounds.upper == pytest.approx(slope(network, random(*image_shape)), rel=1e-9)
    )
    assert only.norm == pytest.approx(only.lipschitz, rel=1e-6)
    assert only.residual == pytest.approx(0, abs=1e-3 * only.norm)


def test_constants_are_the_products_of_all_that_lies_between():
    network, image_shape = network_of("normalised")
    first, second = linear_maps(network, image_shape, seed=0)
    normalisation = network[0][1]
    between = (
        (normalisation.weight / (normalisation.running_var + normalisation.eps).sqrt()).abs().max().item()
    )
    assert first.lipschitz == first.bounds.upper
    assert second.lipschitz == pytest.approx(first.lipschitz * between * second.bounds.upper, rel=1e-9)


LINEAR = {
    "average pooling": (nn.AvgPool2d(2), (2, 6, 6)),
    "its own stride": (nn.AvgPool2d((3, 2), (2, 1)), (1, 7, 6)),
    "a margin that counts": (nn.AvgPool2d(3, 2, 1), (1, 7, 6)),
    "a margin that does not": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), (1, 7, 6)),
    "windows cut off": (nn.AvgPool2d(3, 2, ceil_mode=True), (1, 6, 8)),
    "adaptive": (nn.AdaptiveAvgPool2d((3, 2)), (2, 7, 5)),
    "global": (nn.AdaptiveAvgPool2d(1), (2, 4, 9)),
    "enlarged": (nn.AdaptiveAvgPool2d(6), (1, 1, 4)),
    "normalisation": (frozen(nn.BatchNorm2d(3)), (3, 2, 2)),
    "normalisation alone": (frozen(nn.BatchNorm2d(3, affine=False)), (3, 2, 2)),
    "a frame": (nn.ZeroPad2d((1, 2, 0, -1)), (1, 4, 4)),
    "identity": (nn.Identity(), (3,)),
    "unflatten": (nn.Unflatten(1, (1, 4)), (4, 3)),
}


@pytest.mark.parametrize(("module", "image_shape"), LINEAR.values(), ids=LINEAR)
def test_linear_modules_have_the_norm_of_their_matrix(module, image_shape):
    assert constant_of(module, image_shape) == pytest.approx(
        slope(module.double(), random(*image_shape)), rel=1e-9
    )


def test_global_average_pooling_has_one_over_the_root_of_its_pixels():
    assert constant_of(nn.AdaptiveAvgPool2d(1), (2, 4, 9)) == pytest.approx(1 / 6, rel=1e-9)


def mean(pixels):
    """Their mean, which moves each of them by 1/√pixels of the norm where it is added."""
    layer = nn.Linear(pixels, 1, bias=False)
    nn.init.constant_(layer.weight, 1 / pixels)
    return layer


ACTIVATIONS = {
    "relu": (nn.ReLU(), 1.0),
    "relu6": (nn.ReLU6(), 1.0),
    "tanh": (nn.Tanh(), 1.0),
    "sigmoid": (nn.Sigmoid(), 0.25),
    "leaky relu": (nn.LeakyReLU(0.2), 1.0),
    "steep relu": (nn.LeakyReLU(-3.0), 3.0),
    "dropout": (nn.Dropout(0.9), 1.0),
    "F.relu": (Applied(F.relu), 1.0),
    "torch.relu": (Applied(torch.relu), 1.0),
    "torch.tanh": (Applied(torch.tanh), 1.0),
    "torch.sigmoid": (Applied(torch.sigmoid), 0.25),
    "torch.flatten": (Applied(lambda x: torch.flatten(x, 1)), 1.0),
    "flatten": (Applied(lambda x: x.flatten(1)), 1.0),
    "view": (Applied(lambda x: x.view(x.size(0), -1)), 1.0),
    "reshape": (Applied(lambda x: x.reshape(x.size(0), 2, -1)), 1.0),
    "sum": (Applied(operator.add, nn.ReLU()), 2.0),
    "sum in place": (Applied(lambda x, y: operator.iadd(x + 0, y), nn.Sigmoid()), 1.25),
    "torch.add": (Applied(torch.add, nn.Tanh()), 2.0),
    "twice": (Applied(lambda x: x + x), 2.0),
    "broadcast": (Applied(operator.add, mean(4)), 2.0),
    "broadcast in place": (Applied(lambda x, y: operator.iadd(x + 0, y), mean(4)), 2.0),
    "plus a number": (Applied(lambda x: x + 5), 1.0),
}


@pytest.mark.parametrize(("module", "constant"), ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_activations_and_sums_have_their_constant_and_reach_it_near_0(module, constant):
    assert constant_of(module, (4,)) == pytest.approx(constant, rel=1e-12)
    steepest = max(slope(module, sign * torch.full((4,), 1e-6, dtype=torch.float64)) for sign in (-1, 1))
    assert steepest == pytest.approx(constant, rel=1e-6)


@pytest.mark.parametrize(
    ("pool", "side", "constant"),
    [
        (nn.MaxPool2d(2), 6, 1),
        (nn.MaxPool2d(2, 3), 6, 1),
        (nn.MaxPool2d(3, 2), 7, 2),  # AlexNet's
        (nn.MaxPool2d(3, 2), 3, 1),  # a single window
        (nn.MaxPool2d(3, 1), 9, 3),
        (nn.MaxPool2d((3, 1), (1, 1)), 9, 3**0.5),
        (nn.MaxPool2d(3, 2, 1), 4, 2),
        (nn.MaxPool2d(2, 2, 1), 4, 1),
        (nn.MaxPool2d(4, 2, 2), 2, 2),  # both windows hold the whole side
        (nn.MaxPool2d(3, 2, dilation=2), 9, 3),  # every other pixel, in three windows each way
        (nn.MaxPool2d(3, 3, dilation=2), 9, 1),
        (nn.MaxPool2d(3, 2, ceil_mode=True), 4, 2),  # 1 without the window that is cut off
        (nn.MaxPool2d(5, 2), 9, 3),
    ],
)
def test_max_pooling_has_the_constant_of_the_pixel_in_most_windows(pool, side, constant):
    assert constant_of(pool, (1, side, side)) == pytest.approx(constant, rel=1e-12)
    pixels = torch.eye(side * side, dtype=torch.float64).view(-1, 1, side, side)
    assert pool(pixels).flatten(1).norm(dim=1).max() == pytest.approx(constant, rel=1e-12)  # from 0: reached


def test_a_module_answers_for_itself_and_all_in_it():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x):
            return 3 * x.sort().values

        def lipschitz(self):
            return torch.tensor(3.0)

    network = frozen(nn.Sequential(Scaled(), nn.Linear(4, 2)))
    (only,) = linear_maps(network, (4,), seed=0)
    assert only.name == "1"
    assert only.lipschitz == pytest.approx(3 * only.bounds.upper, rel=1e-12)


class Odd(nn.Conv2d):
    """A subclass that is no convolution."""

    def forward(self, x):
        return super().forward(x).exp()


def in_place_by_another_name(x, y):
    other = y
    other += x  # which a trace takes for a new tensor
    return y


shared = nn.Linear(4, 4)
REFUSED = {
    "in place": (
        Applied(in_place_by_another_name, nn.LeakyReLU()),
        (4,),
        "the network's trace computes something else",
    ),
    "unknown module": (
        nn.Softplus(),
        (4,),
        r"node '_0' \(call_module of Softplus\): put it .* method lipschitz\(\)",
    ),
    "unknown function": (
        Applied(torch.exp),
        (4,),
        r"node 'exp' \(call_function of exp\): put it .* method lipschitz\(\)",
    ),
    "unknown method": (Applied(lambda x: x.square()), (4,), r"node 'square' \(call_method of square\)"),
    "product": (Applied(operator.mul, nn.ReLU()), (4,), r"node 'mul' \(call_function of mul\)"),
    "weighted sum": (
        Applied(lambda x: torch.add(x, x, alpha=3)),
        (4,),
        r"node 'add' \(call_function of add\)",
    ),
    "subclass": (Odd(1, 1, 3), (1, 5, 5), "no Lipschitz constant is known"),
    "indices": (
        Applied(lambda x, pooled: pooled[0], nn.MaxPool2d(2, return_indices=True)),
        (1, 4, 4),
        "call_module of MaxPool2d",
    ),
    "functional pooling": (
        Applied(lambda x: F.max_pool2d(x, 2)),
        (1, 4, 4),
        "no Lipschitz constant is known",
    ),
    "untraceable": (
        Applied(lambda x: x if x.sum() > 0 else -x),
        (4,),
        r"cannot be traced .* method lipschitz\(\)",
    ),
    "reflected": (
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"),
        (1, 5, 5),
        "0: padding_mode 'reflect'",
    ),
    "repeated": (nn.Conv2d(1, 1, 3, padding=3, padding_mode="circular"), (1, 5, 5), "outputs repeat"),
    "no multiple": (nn.Conv2d(1, 1, 3, 2, padding_mode="circular"), (1, 5, 5), "needs a grid of multiples"),
    "no statistics": (
        nn.BatchNorm2d(2, track_running_stats=False),
        (2, 3, 3),
        "by the batch's own statistics",
    ),
    "divisor": (nn.AvgPool2d(2, divisor_override=3), (1, 4, 4), "a divisor of its own"),
    "used twice": (nn.Sequential(shared, shared), (4,), "the layer is used twice"),
    "training": (nn.Dropout().train(), (4,), "in training mode"),
}


@pytest.mark.parametrize(("module", "image_shape", "message"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_constant_is_refused_in_a_line(module, image_shape, message):
    network = nn.Sequential(module, nn.Flatten())
    if not module.training or not isinstance(module, nn.Dropout):
        network.eval()
    if not any(True for _ in network.parameters()):
        network.append(nn.Linear(outputs_of(module.float(), image_shape), 2).eval())
    with pytest.raises(ValueError, match=message) as error:
        linear_maps(network, image_shape, seed=0)
    assert "\n" not in str(error.value)


def test_alexnet_has_the_rows_of_table_5():
    torch.manual_seed(0)
    network = alexnet(weights=None)
    for place, inputs, outputs in (
        (1, 9216, 12),
        (4, 12, 11),
        (6, 11, 10),
    ):  # the large ones take half a minute
        network.classifier[place] = nn.Linear(inputs, outputs)
    maps = linear_maps(network.eval(), (3, 63, 63), seed=0)
    assert [(one.name, one.label, one.size) for one in maps] == [
        ("features.0", "Conv. 1", "3 × 11 × 11 × 64"),
        ("features.3", "Conv. 2", "64 × 5 × 5 × 192"),
        ("features.6", "Conv. 3", "192 × 3 × 3 × 384"),
        ("features.8", "Conv. 4", "384 × 3 × 3 × 256"),
        ("features.10", "Conv. 5", "256 × 3 × 3 × 256"),
        ("classifier.1", "FC. 1", "9216 × 12"),
        ("classifier.4", "FC. 2", "12 × 11"),
        ("classifier.6", "FC. 3", "11 × 10"),
    ]
    uppers = [one.bounds.upper for one in maps]
    gains = [after.lipschitz / before.lipschitz for before, after in pairwise(maps)]
    # The pooling before the second and third, and that after
    # the fifth, with one pixel left to be repeated 6 × 6 times.
    between = [2, 2, 1, 1, 1 * 6, 1, 1]
    assert gains == pytest.approx(
        [gain * upper for gain, upper in zip(between, uppers[1:], strict=True)], rel=1e-6
    )
    for one in maps:
        assert 0 <= one.bounds.lower <= one.bounds.upper
        assert 0.5 * one.bounds.upper <= one.norm <= one.bounds.upper * (1 + 1e-12)
        assert one.residual <= 1e-4 * one.norm


def test_grouped_convolutions_are_counted_and_printed_with_all_their_channels():
    network = nn.Sequential(
        nn.Conv2d(4, 8, (3, 2), groups=2), nn.Conv2d(8, 8, 1, groups=8), nn.Flatten(), nn.Linear(96, 2)
    )
    maps = linear_maps(network.eval(), (4, 5, 5), seed=0)
    assert [(one.label, one.size) for one in maps] == [
        ("Conv. 1", "4 × 3 × 2 × 8, 2 groups"),
        ("Conv. 2", "8 × 1 × 1 × 8, 8 groups"),
        ("FC. 1", "96 × 2"),
    ]


def test_instabilities_are_those_by_hand():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2)).eval()
    x, r = random(7, 2, 2).float(), 0.5 * random(7, 2, 2, seed=1).float()
    measured = instabilities(network, ["3", "1"], x, x + r, batch=3)
    first = [network[1](images.flatten(1)) for images in (x, x + r)]
    second = [network[3](hidden.relu()) for hidden in first]
    size = r.flatten(1).norm(dim=1)
    for name, (one, other) in {"1": first, "3": second}.items():
        assert measured[name].dtype == torch.float64
        assert measured[name].tolist() == pytest.approx(((other - one).norm(dim=1) / size).tolist(), rel=1e-5)
        assert not measured[name].requires_grad
    assert list(measured) == ["3", "1"]


@pytest.mark.parametrize("batch", [1, 4, 9, 20])
def test_instabilities_do_not_depend_on_the_batch(batch):
    network, image_shape = network_of("conv")
    x, r = random(9, *image_shape), random(9, *image_shape, seed=1)
    names = [one.name for one in linear_maps(network, image_shape, seed=0)]
    wanted = instabilities(network, names, x, x + r, batch=5)
    measured = instabilities(network, names, x, x + r, batch=batch)
    for name in names:
        assert measured[name].tolist() == pytest.approx(wanted[name].tolist(), rel=1e-9)


def test_an_image_left_as_it_was_has_no_instability_and_no_hook_stays():
    network, image_shape = network_of("softmax")
    x = random(3, *image_shape)
    adversarial = x.clone()
    adversarial[1] += 1
    (measured,) = instabilities(network, ["0.1"], x, adversarial, batch=2).values()
    assert measured.isnan().tolist() == [True, False, True]
    assert not any(module._forward_hooks for module in network.modules())


def test_the_network_is_left_as_it_was():
    network, image_shape = network_of("normalised")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    linear_maps(network, image_shape, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module.training for module in network.modules())
