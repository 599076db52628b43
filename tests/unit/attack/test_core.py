"""D(x, l) against closed forms, and what an attack promises of its result, by either method."""

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from blindspots.attack import core, targets
from blindspots.attack.core import minimum_distortion, refine
from blindspots.attack.penalty import LBFGS
from blindspots.attack.sqp import SQP
from blindspots.networks import architectures
from blindspots.parallel.workers import can_fork

METHODS = {
    "l2": LBFGS(norm="l2"),
    "squared_l2": LBFGS(norm="squared_l2"),
    "SQP": SQP(),
    "SQP without exploration": SQP(exploration=0),
}
BY_EITHER_METHOD = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
BY_SQP = pytest.mark.parametrize(
    "method", [SQP(), SQP(exploration=0)], ids=["SQP", "SQP without exploration"]
)
PIXELS = 16


def small_network(seed=0, shape=(PIXELS, 12, 4), dtype=torch.float64, scale=3.0, activation="sigmoid"):
    """A random network, with weights large enough that its answers differ between images."""
    network = architectures.fully_connected(shape[:1], shape[1:], activation)
    architectures.initialise(network, torch.Generator().manual_seed(seed))
    for layer in architectures.weight_layers(network):
        layer.weight.data *= scale
    # Each class its share of the images.
    network.to(dtype)
    with torch.no_grad():
        network[-1].bias -= network(random_images(200, shape[0], dtype=dtype)).mean(0)
    return architectures.frozen(network)


def random_images(count, *shape, seed=1, dtype=torch.float64):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype
    )


def pictures(count, seed=1):
    """With many pixels on the bounds."""
    return (3 * random_images(count, PIXELS, seed=seed) - 1).clamp(0, 1)


def other_targets(network, images):
    logits = network(images)
    return (logits.argmax(1) + 1 + torch.arange(len(images)) % (logits.shape[1] - 1)) % logits.shape[1]


def linear(seed, pixels=PIXELS, size=1.0, dtype=torch.float64):
    """A linear classifier of two classes: its weights' difference w and offset b, and the network."""
    generator = torch.Generator().manual_seed(seed)
    network = architectures.fully_connected([pixels], [2], "sigmoid")
    network[1].weight.data = size * torch.randn(2, pixels, generator=generator)
    network[1].bias.data.zero_()
    network.to(dtype)
    w = (network[1].weight[1] - network[1].weight[0]).detach()
    network[1].bias.data[1] = -0.5 * w.sum()  # the hyperplane goes through the middle of the box
    return w, architectures.frozen(network)


def exact_in_box(x, w, b, sign):
    """The smallest distortion with sign (w·x' + b) ≥ 0 and x'
    in [0, 1]: x' = clip(x + t sign w), by bisection in t."""
    low, high = 0.0, 1e6
    for _ in range(200):
        t = (low + high) / 2
        reached = sign * (w @ np.clip(x + t * sign * w, 0, 1) + b) >= 0
        low, high = (low, t) if reached else (t, high)
    return np.sqrt(np.mean((np.clip(x + high * sign * w, 0, 1) - x) ** 2))


# Against closed forms


def overshoot(method, w, pixels):
    """What a result may be further away than the border, by the method's
    precision: twice the margin of 1e-4 logits, or 0.1 % of c, which moves the
    lead by at most 0.004 logits and counts where the border is very near."""
    return (4e-3 if isinstance(method, LBFGS) else 2.1e-4) / w.norm().item() / pixels**0.5


@BY_EITHER_METHOD
@settings(max_examples=5)
@given(seed=st.integers(0, 10**6), size=st.sampled_from([0.3, 1.0, 5.0]))
@example(seed=182, size=0.3)  # an image at a hundredth of the usual distance
def test_a_linear_classifier_gives_the_distance_to_the_hyperplane(method, seed, size):
    w, network = linear(seed, size=size)
    # So near to the middle of the box that the bounds play no part.
    images = 0.4 + 0.2 * random_images(6, PIXELS, seed=seed)
    offset = (images - 0.5) @ w
    wanted = offset.abs() / w.norm() / PIXELS**0.5
    result = minimum_distortion(network, images, (offset < 0).long(), method=method)
    assert result.success.all()
    margin = 1e-4 / w.norm().item() / PIXELS**0.5
    assert (result.distortion >= wanted + 0.99 * margin).all()
    assert (result.distortion <= 1.001 * wanted + overshoot(method, w, PIXELS)).all()


@BY_EITHER_METHOD
def test_where_the_box_is_active_the_constrained_minimum_is_found(method):
    w, network = linear(5, pixels=12)
    images = (
        random_images(10, 12, seed=5) > 0.5
    ).double()  # black and white, so that many pixels cannot move
    bias = float(-0.5 * w.sum())
    offset = (images @ w + bias).numpy()
    wanted = np.array(
        [exact_in_box(x, w.numpy(), bias, -np.sign(o)) for x, o in zip(images.numpy(), offset, strict=True)]
    )
    assert (
        wanted > 1.05 * np.abs(offset) / w.norm().item() / 12**0.5
    ).sum() >= 5  # the box matters in these problems
    result = minimum_distortion(network, images, torch.from_numpy(offset < 0).long(), method=method)
    assert result.success.all()
    assert (result.distortion.numpy() >= wanted).all()
    # A lead costs more distortion where some of the pixels cannot move.
    assert result.distortion.numpy() == pytest.approx(wanted, rel=1e-3, abs=2 * overshoot(method, w, 12))


# What is promised of every result


@pytest.fixture(scope="module", params=METHODS.values(), ids=METHODS)
def attacked(request):
    network, images = small_network(), random_images(20, PIXELS)
    classes = other_targets(network, images)
    return network, images, classes, minimum_distortion(network, images, classes, method=request.param)


def test_found_images_are_classified_as_the_target(attacked):
    network, _, classes, result = attacked
    assert result.success.all()
    assert torch.equal(network(result.images).argmax(1), classes)
    assert torch.equal(result.targets, classes)


def test_found_images_lead_by_the_margin(attacked):
    network, _, _, result = attacked
    logits = network(result.images)
    top = logits.topk(2).values
    assert (top[:, 0] - top[:, 1] >= 0.99e-4).all()


@BY_EITHER_METHOD
def test_found_images_lead_by_a_larger_margin_if_asked(method):
    network, images = small_network(), random_images(10, PIXELS)
    classes = other_targets(network, images)
    result = minimum_distortion(network, images, classes, method=method, margin=0.5)
    assert result.success.all()
    top = network(result.images).topk(2).values
    assert (top[:, 0] - top[:, 1] >= 0.499).all()
    nearer = minimum_distortion(network, images, classes, method=method).distortion
    assert result.distortion.mean() > nearer.mean()


def test_results_lie_in_the_box(attacked):
    _, _, _, result = attacked
    assert ((result.images >= 0) & (result.images <= 1)).all()


@BY_EITHER_METHOD
@pytest.mark.parametrize("bounds", [(0.1, 0.7), (-0.3, 1.3)])
def test_results_lie_in_other_boxes_in_single_precision(method, bounds):
    network = small_network(dtype=torch.float32)
    images = bounds[0] + (bounds[1] - bounds[0]) * pictures(10).float()
    images = images.clamp(*bounds)
    result = minimum_distortion(network, images, other_targets(network, images), method=method, bounds=bounds)
    assert result.success.sum() >= 8
    assert ((result.images >= bounds[0]) & (result.images <= bounds[1])).all()


@BY_EITHER_METHOD
@pytest.mark.parametrize("bounds", [(0.0, 255.0), (-1.0, 1.0), (0.0, 1e-4)], ids=str)
def test_the_scale_of_the_pixels_makes_no_difference_in_single_precision(method, bounds):
    low, width = bounds[0], bounds[1] - bounds[0]
    network, images = small_network(dtype=torch.float32), pictures(10).float()
    scaled = Answers(lambda logits: logits, nn.Sequential(Scaled(low, width), network)).eval()
    others = (low + width * images).clamp(*bounds)
    classes = other_targets(network, images)
    one = minimum_distortion(network, images, classes, method=method)
    other = minimum_distortion(scaled, others, classes, method=method, bounds=bounds)
    assert one.success.all()
    assert other.success.all()
    assert (other.distortion / width).mean().item() == pytest.approx(one.distortion.mean().item(), rel=0.02)
    assert torch.equal(other.images[other.images == others], others[other.images == others])
    again = refine(scaled, others, other.images, classes, bounds=bounds)
    assert again.success.all()
    assert (again.distortion <= other.distortion * (1 + 1e-5)).all()
    if isinstance(method, LBFGS):
        power = 1 if method.norm == "l2" else 2
        assert (other.c * width**power).log().mean().item() == pytest.approx(
            one.c.log().mean().item(), abs=0.1
        )


@BY_SQP
@pytest.mark.parametrize("margin", [0.01, 0.5])
def test_a_larger_margin_costs_no_more_than_it_has_to(method, margin):
    w, network = linear(3)
    images = 0.4 + 0.2 * random_images(6, PIXELS)
    offset = (images - 0.5) @ w
    result = minimum_distortion(network, images, (offset < 0).long(), method=method, margin=margin)
    wanted = (offset.abs() + margin) / w.norm() / PIXELS**0.5
    assert (result.distortion <= 1.001 * wanted + 4.1e-3 / w.norm().item() / PIXELS**0.5).all()


@BY_EITHER_METHOD
@pytest.mark.parametrize("masked", [-1e4, -1e9])
def test_a_class_out_of_the_question_makes_no_difference(method, masked):
    network, images = small_network(dtype=torch.float32), pictures(10).float()
    with_it = Answers(
        lambda logits: torch.cat([logits, torch.full((len(logits), 1), masked)], 1), network
    ).eval()
    classes = other_targets(network, images)
    one, two = (minimum_distortion(model, images, classes, method=method) for model in (network, with_it))
    assert two.success.all()
    assert two.distortion.mean().item() == pytest.approx(one.distortion.mean().item(), rel=1e-2)


@pytest.mark.parametrize("masked", [-1e4, -1e9])
def test_a_class_out_of_the_question_keeps_no_quadratic_step_from_converging(masked):
    network, images = small_network(dtype=torch.float32), pictures(10).float()
    with_it = Answers(
        lambda logits: torch.cat([logits, torch.full((len(logits), 1), masked)], 1), network
    ).eval()
    classes, plain = other_targets(network, images), SQP(exploration=0, competitors=4)
    one, two = (minimum_distortion(model, images, classes, method=plain) for model in (network, with_it))
    assert torch.equal(two.status, one.status)
    assert two.distortion.numpy() == pytest.approx(one.distortion.numpy(), rel=1e-3)


def test_the_distortion_is_that_of_the_returned_images(attacked):
    _, images, _, result = attacked
    wanted = (result.images - images).square().mean(1).sqrt()
    assert result.distortion.numpy() == pytest.approx(wanted.numpy(), rel=1e-9)


def test_no_random_image_as_near_is_classified_as_the_target(attacked):
    network, images, classes, result = attacked
    length = (result.images - images).norm(dim=1, keepdim=True)
    for seed in range(30):
        step = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)).double()
        near = (images + 0.97 * length * step / step.norm(dim=1, keepdim=True)).clamp(0, 1)
        assert not (network(near).argmax(1) == classes).any()


def test_no_shorter_step_in_the_same_direction_would_do(attacked):
    # For nearly all of the paper's procedure, where the minimum for one c need not lie on the border.
    network, images, classes, result = attacked
    shorter = images + (0.99 if result.c.isnan().all() else 0.95) * (result.images - images)
    assert (network(shorter).argmax(1) != classes).float().mean() >= (1.0 if result.c.isnan().all() else 0.9)


def test_every_status_of_a_result_has_a_text(attacked):
    _, _, _, result = attacked
    assert set(result.status.tolist()) <= set(core.STATUS)


def test_what_a_result_holds_besides(attacked):
    _, _, _, result = attacked
    quadratic = result.c.isnan()
    assert quadratic.all() or (result.c > 0).all()
    assert (result.residual >= 0).all()
    assert result.residual.median() <= 0.01
    assert (result.gradient_evaluations > 0).all()
    assert not any(values.requires_grad for values in result)


def test_quadratic_steps_are_nearer_than_the_papers_procedure():
    network, images = small_network(), random_images(20, PIXELS)
    classes = other_targets(network, images)
    quadratic, paper = (
        minimum_distortion(network, images, classes, method=name) for name in ("sqp", "lbfgs")
    )
    assert (quadratic.distortion <= 1.001 * paper.distortion).float().mean() >= 0.9
    assert quadratic.distortion.mean() < 0.95 * paper.distortion.mean()
    assert quadratic.gradient_evaluations.double().mean() < paper.gradient_evaluations.double().mean()


@cache
def papers_result(activation, scale):
    network, images = small_network(activation=activation, scale=scale), random_images(20, PIXELS, seed=0)
    return minimum_distortion(
        network, images, other_targets(network, images), method=LBFGS(norm="squared_l2")
    )


@pytest.mark.parametrize(("activation", "scale"), [("sigmoid", 300.0), ("tanh", 30.0)])
@BY_SQP
def test_what_quadratic_steps_do_not_reach_the_papers_procedure_finds(method, activation, scale):
    network, images = small_network(activation=activation, scale=scale), random_images(20, PIXELS, seed=0)
    classes = other_targets(network, images)
    quadratic = minimum_distortion(network, images, classes, method=method)
    paper = papers_result(activation, scale)
    assert paper.success.sum() >= 10
    assert (quadratic.success | ~paper.success).all()


@pytest.mark.parametrize(("name", "options"), [("sqp", SQP()), ("lbfgs", LBFGS())])
def test_a_methods_name_means_its_usual_options(name, options):
    network, images = small_network(), random_images(5, PIXELS)
    classes = other_targets(network, images)
    one, two = (minimum_distortion(network, images, classes, method=method) for method in (name, options))
    assert torch.equal(one.images, two.images)
    if name == "sqp":
        assert torch.equal(minimum_distortion(network, images, classes).images, one.images)


# The last is a network so steep that quadratic steps do not reach all of the targets.
@pytest.mark.parametrize(
    ("method", "activation", "scale"),
    [
        *((method, "relu" if isinstance(method, SQP) else "sigmoid", 3.0) for method in METHODS.values()),
        (SQP(exploration=0), "tanh", 30.0),
    ],
    ids=[*METHODS, "SQP with the paper's procedure"],
)
def test_gradient_evaluations_are_those_made(method, activation, scale):
    network, calls = small_network(activation=activation, scale=scale), []
    network.register_full_backward_hook(lambda module, inputs, outputs: calls.append(len(outputs[0])))
    images = random_images(5, PIXELS)
    result = minimum_distortion(network, images, other_targets(network, images), method=method, batch=1)
    # The check of the input takes one more.
    assert sum(calls) - result.gradient_evaluations.sum() == 1
    assert (result.gradient_evaluations >= 2).all()
    calls.clear()
    refined = refine(network, images, result.images, result.targets)
    assert sum(calls) - refined.gradient_evaluations.sum() == 4


@BY_EITHER_METHOD
def test_the_inputs_are_left_alone(method):
    network, images = small_network(), random_images(5, PIXELS)
    classes = other_targets(network, images)
    before, asked = images.clone(), classes.clone()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    result = minimum_distortion(network, images, classes, method=method)
    kept = result.images.clone()
    refine(network, images, result.images, classes)
    assert torch.equal(images, before)
    assert torch.equal(classes, asked)
    assert torch.equal(result.images, kept)
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())


@BY_EITHER_METHOD
def test_the_same_call_gives_the_same_bytes(method):
    network = small_network(dtype=torch.float32, activation="relu" if isinstance(method, SQP) else "sigmoid")
    images = random_images(10, PIXELS, dtype=torch.float32)
    classes = other_targets(network, images)
    one = minimum_distortion(network, images, classes, method=method)
    torch.rand(7)  # whatever else draws random numbers
    two = minimum_distortion(network, images, classes, method=method)
    assert torch.equal(one.images, two.images)


@BY_EITHER_METHOD
def test_gradients_of_parameters_and_images_are_no_trouble_and_there_are_none(method):
    network, images = small_network().requires_grad_(True), random_images(3, PIXELS)
    classes = other_targets(network, images)
    wanted = minimum_distortion(network, images, classes, method=method)
    tracked = minimum_distortion(network, images.clone().requires_grad_(), classes, method=method)
    with torch.no_grad():
        within = minimum_distortion(network, images, classes, method=method)
    assert not any(values.requires_grad for values in (*wanted, *tracked))
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(tracked.images, wanted.images)
    assert torch.equal(within.images, wanted.images)


@BY_EITHER_METHOD
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_keep_the_precision_of_the_images(method, dtype):
    network, images = small_network(dtype=dtype), random_images(4, PIXELS, dtype=dtype)
    result = minimum_distortion(network, images, other_targets(network, images), method=method)
    assert result.success.all()
    assert result.images.dtype == result.distortion.dtype == dtype


@BY_EITHER_METHOD
def test_single_precision_comes_to_the_same_distortions(method):
    single, double = (small_network(dtype=dtype) for dtype in (torch.float32, torch.float64))
    images = random_images(20, PIXELS)
    classes = other_targets(double, images)
    one = minimum_distortion(single, images.float(), classes, method=method)
    two = minimum_distortion(double, images, classes, method=method)
    assert one.success.all()
    ratio = one.distortion.double() / two.distortion
    assert ratio.median().item() == pytest.approx(1, abs=1e-3)
    # A few searches over c take another turn.
    assert ((ratio - 1).abs() <= (0.02 if isinstance(method, LBFGS) else 1e-3)).float().mean() >= 0.9


@BY_EITHER_METHOD
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 4)])
def test_images_of_other_shapes_into_a_convolutional_network(method, shape):
    torch.manual_seed(0)
    convolution = nn.Conv2d(shape[0], 4, 3)
    network = nn.Sequential(
        convolution, nn.Tanh(), nn.Flatten(), nn.Linear(4 * (shape[1] - 2) ** 2, 5)
    ).eval()
    images = random_images(6, *shape, dtype=torch.float32)
    classes = other_targets(network, images)
    result = minimum_distortion(network, images, classes, method=method)
    assert result.images.shape == images.shape
    assert result.success.all()
    assert torch.equal(network(result.images).argmax(1), classes)
    wanted = (result.images - images).flatten(1).square().mean(1).sqrt()
    assert result.distortion.numpy() == pytest.approx(wanted.detach().numpy(), rel=1e-4)


@BY_SQP
def test_the_layout_of_the_images_in_memory_makes_no_difference(method):
    network, images = small_network(), random_images(4, 1, 4, 4)
    classes = other_targets(network, images)
    wanted = minimum_distortion(network, images, classes, method=method)
    layouts = [
        images.contiguous(memory_format=torch.channels_last),
        images.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        torch.stack([images, images], dim=-1)[..., 0],
    ]
    for layout in layouts:
        result = minimum_distortion(network, layout, classes, method=method)
        assert result.images.numpy() == pytest.approx(wanted.images.numpy(), abs=1e-9)
    repeated = minimum_distortion(
        network, images[:1].expand(4, -1, -1, -1), classes[:1].expand(4), method=method
    )
    assert repeated.images.numpy() == pytest.approx(wanted.images[:1].expand(4, -1, -1, -1).numpy(), abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_targets_may_be_any_integers(dtype):
    network, images = small_network(), random_images(4, PIXELS)
    classes = other_targets(network, images)
    one, two = (minimum_distortion(network, images, given) for given in (classes, classes.to(dtype)))
    assert torch.equal(one.images, two.images)
    assert two.targets.dtype == torch.int64
    assert refine(network, images, one.images, classes.to(dtype)).success.all()


# Independence


class RowByRow(nn.Module):
    """A network each of whose rows is rounded the same, whatever else is in the batch."""

    def __init__(self, network, activation):
        super().__init__()
        self.layers, self.activation = nn.ModuleList(architectures.weight_layers(network)), activation

    def forward(self, images):
        values = images.flatten(1)
        for layer in self.layers:
            if layer is not self.layers[0]:
                values = self.activation(values)
            values = (values[:, None, :] * layer.weight).sum(2) + layer.bias
        return values


def mixed(activation):
    """Ten images, of which the fourth has a target that no
    image gets to, and the seventh is of its target's class."""
    units, scale = ((20, 20, 5), 1.5) if activation == "relu" else ((12, 5), 3.0)
    network = small_network(seed=2, shape=(PIXELS, *units), scale=scale)
    network[-1].weight.data[4] = network[-1].weight.data[0]
    network[-1].bias.data[4] = network[-1].bias.data[0] - 10
    # Both of these activations are computed without a function
    # of which a vector's last elements are rounded apart.
    network = (
        RowByRow(network, {"relu": nn.ReLU(), "softsign": nn.Softsign()}[activation])
        .eval()
        .requires_grad_(False)
    )
    images = pictures(10, seed=3)
    classes = (network(images).argmax(1) + 1) % 4
    classes[3], classes[6] = 4, network(images)[6].argmax()
    return network, images, classes


@pytest.mark.parametrize(
    ("method", "activation"),
    [*((method, "softsign") for method in METHODS.values()), (SQP(), "relu")],
    ids=[*METHODS, "SQP with kinks"],
)
def test_one_images_result_does_not_depend_on_the_others(method, activation):
    network, images, classes = mixed(activation)
    together = minimum_distortion(network, images, classes, method=method)
    assert together.status[3] in (core.NOT_FOUND, core.NO_GRADIENT)
    assert together.status[6] == core.ALREADY
    assert together.success.tolist() == [row != 3 for row in range(10)]
    for rows, batch in (([1], 1), ([9, 6, 0, 5], 4), ([0, 1, 2, 4, 5, 7, 8, 9], 3)):
        some = minimum_distortion(network, images[rows], classes[rows], method=method, batch=batch)
        assert torch.equal(some.status, together.status[rows])
        assert some.images.numpy() == pytest.approx(together.images[rows].numpy(), abs=1e-9)


def test_some_of_these_images_are_explored_where_the_network_has_kinks():
    # Else the test above would not be about exploration.
    network, images, classes = mixed("relu")
    rows = [0, 1, 2, 4, 5, 7, 8, 9]
    some, none = (
        minimum_distortion(network, images[rows], classes[rows], method=SQP(exploration=n)) for n in (100, 0)
    )
    assert (some.gradient_evaluations >= none.gradient_evaluations + 100).sum() >= 2
    assert (some.images != none.images).any(dim=1).sum() >= 2


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
@BY_SQP
@pytest.mark.parametrize("batch", [1, 3, 7])
def test_the_batch_size_changes_nothing_but_rounding(method, batch, activation):
    network, images = small_network(activation=activation), random_images(8, PIXELS)
    classes = other_targets(network, images)
    whole = minimum_distortion(network, images, classes, method=method)
    parts = minimum_distortion(network, images, classes, method=method, batch=batch)
    assert torch.equal(parts.status, whole.status)
    assert parts.images.numpy() == pytest.approx(whole.images.numpy(), abs=1e-9)


# Invariances

# The search over c amplifies rounding: a c that just succeeds or just fails changes all that
# follow, up to the tolerance of the search and a little more where the path of the minima is steep
# in c, as it is for c‖r‖₂. The quadratic steps hardly do: nearly all results agree to 1e-12, but a
# projection may come to its tolerance of 1e-4 a step earlier or later.
INVARIANT = [
    pytest.param(METHODS["l2"], (PIXELS, 5), 0.01, id="l2"),
    pytest.param(METHODS["squared_l2"], (PIXELS, 5), 5e-3, id="squared_l2"),
    pytest.param(SQP(), (PIXELS, 5), 2e-4, id="SQP on a linear classifier"),
    pytest.param(SQP(exploration=0), (PIXELS, 12, 4), 2e-4, id="SQP without exploration"),
]
UNCHANGED = pytest.mark.parametrize(("method", "shape", "tolerance"), INVARIANT)
EXAMPLES = settings(max_examples=4)
SEEDS = given(seed=st.integers(0, 10**6))


def asked(seed, shape):
    network, images = small_network(seed, shape), pictures(6, seed=seed)
    return network, images, other_targets(network, images)


def same(one, other, tolerance):
    assert torch.equal(one.success, other.success)
    # Very near the border a small way past it is a large part of the distortion.
    assert one.distortion.numpy() == pytest.approx(
        other.distortion.numpy(), rel=tolerance, abs=tolerance / 10, nan_ok=True
    )


@UNCHANGED
@EXAMPLES
@SEEDS
def test_permuted_images_give_permuted_results(method, shape, tolerance, seed):
    network, images, classes = asked(seed, shape)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    whole = minimum_distortion(network, images, classes, method=method)
    permuted = minimum_distortion(network, images[order], classes[order], method=method)
    same(type(whole)(*(values[order] for values in whole)), permuted, tolerance)


@UNCHANGED
@EXAMPLES
@SEEDS
def test_a_constant_added_to_all_logits_changes_nothing_but_rounding(method, shape, tolerance, seed):
    network, images, classes = asked(seed, shape)
    raised = small_network(seed, shape)
    raised[-1].bias.data += 5
    one, two = (minimum_distortion(model, images, classes, method=method) for model in (network, raised))
    same(one, two, tolerance)


@UNCHANGED
@EXAMPLES
@SEEDS
def test_permuted_pixels_change_nothing_but_rounding(method, shape, tolerance, seed):
    network, images, classes = asked(seed, shape)
    order = torch.randperm(PIXELS, generator=torch.Generator().manual_seed(seed))
    turned = small_network(seed, shape)
    turned[1].weight.data = turned[1].weight.data[:, order]
    one = minimum_distortion(network, images, classes, method=method)
    two = minimum_distortion(turned, images[:, order], classes, method=method)
    same(one, two, tolerance)


@UNCHANGED
@EXAMPLES
@SEEDS
def test_other_bounds_are_another_unit_of_the_pixels(method, shape, tolerance, seed):
    # Pixels in [-1, 1] in place of [0, 1]: the same problem with all distances doubled.
    network, images, classes = asked(seed, shape)
    doubled = nn.Sequential(nn.Flatten(), Halve(), *list(network)[1:]).eval()
    one = minimum_distortion(network, images, classes, method=method)
    two = minimum_distortion(doubled, 2 * images - 1, classes, method=method, bounds=(-1.0, 1.0))
    same(one._replace(distortion=2 * one.distortion), two, tolerance)


class Halve(nn.Module):
    def forward(self, x):
        return (x + 1) / 2


def test_permuted_pixels_change_little_where_a_network_is_explored():
    # The noise of the exploration is another for each pixel, so that single images come to other minima.
    network, images = small_network(scale=1.5, activation="relu"), random_images(40, PIXELS)
    classes = other_targets(network, images)
    order = torch.randperm(PIXELS, generator=torch.Generator().manual_seed(0))
    turned = small_network(scale=1.5, activation="relu")
    turned[1].weight.data = turned[1].weight.data[:, order]
    one = minimum_distortion(network, images, classes)
    two = minimum_distortion(turned, images[:, order], classes)
    assert torch.equal(one.success, two.success)
    assert one.distortion.mean().item() == pytest.approx(two.distortion.mean().item(), rel=0.02)
    assert one.distortion.median().item() == pytest.approx(two.distortion.median().item(), rel=0.02)


# Images without an adversarial example, and images that need none


@BY_EITHER_METHOD
def test_an_image_that_is_the_target_already_has_distortion_zero(method):
    network, images = small_network(), random_images(6, PIXELS)
    classes = other_targets(network, images)
    classes[2] = network(images)[2].argmax()
    result = minimum_distortion(network, images, classes, method=method)
    assert result.status[2] == core.ALREADY
    assert result.success[2]
    assert result.distortion[2] == 0
    assert result.gradient_evaluations[2] == 0
    assert torch.equal(result.images[2], images[2])
    assert (result.status == core.ALREADY).sum() == 1


def is_not_found(result, images, rows, *statuses):
    assert not result.success[rows].any()
    assert set(result.status[rows].tolist()) <= set(statuses or [core.NOT_FOUND])
    assert result.distortion[rows].isnan().all()
    assert result.c[rows].isnan().all()
    assert result.residual[rows].isnan().all()
    assert torch.equal(result.images[rows], images[rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@BY_EITHER_METHOD
def test_a_network_that_never_says_the_target_is_counted_as_not_found(method, dtype):
    network = architectures.frozen(architectures.fully_connected([PIXELS], [3], "sigmoid")).to(dtype)
    network[1].weight.data *= 1e-3
    network[1].bias.data = torch.tensor([2.0, 0.0, 0.0], dtype=dtype)
    images = random_images(4, PIXELS, dtype=dtype)
    result = minimum_distortion(network, images, torch.tensor([1, 2, 1, 0]), method=method)
    is_not_found(result, images, [0, 1, 2])
    assert result.status[3] == core.ALREADY
    assert (result.gradient_evaluations[:3] > 0).all()


@BY_EITHER_METHOD
def test_a_target_out_of_reach_of_the_box_is_not_found(method):
    w, network = linear(1)
    network[1].bias.data[1] = -2 * w.abs().sum()  # no image in the box gets to class 1
    images = random_images(4, PIXELS)
    result = minimum_distortion(network, images, torch.ones(4, dtype=torch.long), method=method)
    is_not_found(result, images, range(4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@BY_EITHER_METHOD
def test_a_network_without_gradients_ends_with_a_status(method, dtype):
    # No unit of the first layer is ever positive.
    network = small_network(activation="relu", dtype=dtype)
    network[1].bias.data -= 1e3
    images = random_images(4, PIXELS, dtype=dtype)
    logits = network(images)
    assert (logits == logits[0]).all()
    answer = logits[0].argmax().item()
    result = minimum_distortion(
        network, images, torch.tensor([(answer + step) % 4 for step in range(4)]), method=method
    )
    is_not_found(result, images, [1, 2, 3], core.NO_GRADIENT)
    assert result.status[0] == core.ALREADY


@BY_EITHER_METHOD
@pytest.mark.parametrize(
    "blind",
    [
        lambda x: (255 * x).round() / 255,
        lambda x: (255 * x).int().to(x.dtype) / 255 + 0 * x,
        lambda x: torch.sign(x - 0.5),
    ],
    ids=["rounds", "casts", "only signs"],
)
def test_a_model_that_hides_its_gradient_is_told_from_a_robust_one(method, blind):
    class Blind(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(blind(x))

    network, images = small_network(), random_images(6, PIXELS)
    model = Blind(network).eval()
    result = minimum_distortion(model, images, other_targets(model, images), method=method)
    assert (result.status == core.NO_GRADIENT).all()
    assert "no gradient" in core.STATUS[core.NO_GRADIENT]
    seen = minimum_distortion(network, images, other_targets(network, images), method=method)
    assert not (seen.status == core.NO_GRADIENT).any()


@pytest.mark.parametrize("size", [1e2, 1e4])
@BY_EITHER_METHOD
def test_a_saturated_network_ends_with_a_status_and_without_nan(method, size):
    network = small_network(dtype=torch.float32)
    for layer in architectures.weight_layers(network):
        layer.weight.data *= size
        layer.bias.data *= size
    images = random_images(8, PIXELS, dtype=torch.float32)
    classes = other_targets(network, images)
    result = minimum_distortion(network, images, classes, method=method)
    assert ((result.images >= 0) & (result.images <= 1)).all()
    assert set(result.status.tolist()) <= set(core.STATUS)
    assert torch.equal(result.success, network(result.images).argmax(1) == classes)
    assert torch.equal(result.distortion.isnan(), ~result.success)
    is_not_found(result, images, ~result.success, core.NOT_FOUND, core.NO_GRADIENT)
    # At most as many as there may be searches over c, each with all its evaluations.
    assert (result.gradient_evaluations <= 30 * 200 + 1000).all()


@pytest.mark.parametrize(("size", "margin"), [(1.0, 0.0), (1e3, 1e-4), (1e4, 1e-4)])
@pytest.mark.parametrize(
    "method", [LBFGS(norm="squared_l2"), SQP(), SQP(exploration=0)], ids=list(METHODS)[1:]
)
def test_no_adversarial_example_is_lost_to_rounding_in_single_precision(method, size, margin):
    # Where logits are large, or there is no margin, rounding is
    # larger than the margin and may differ between batch sizes.
    for seed in range(2):
        network = small_network(seed, dtype=torch.float32)
        network[-1].weight.data *= size
        network[-1].bias.data *= size
        images = random_images(20, PIXELS, seed=seed, dtype=torch.float32)
        result = minimum_distortion(
            network, images, other_targets(network, images), method=method, margin=margin
        )
        assert result.success.all()


@BY_EITHER_METHOD
def test_without_a_margin_all_are_found_in_double_precision(method):
    network, images = small_network(), random_images(20, PIXELS)
    assert minimum_distortion(
        network, images, other_targets(network, images), method=method, margin=0.0
    ).success.all()


# Policies for the targets


def test_random_targets_are_those_of_the_seed_whatever_the_batch():
    network, images = small_network(), random_images(8, PIXELS)
    predicted = network(images).argmax(1)
    labels = (predicted + torch.arange(8) % 2) % 4  # every other image is misclassified
    chosen = [
        minimum_distortion(network, images, "random", labels=labels, seed=seed).targets for seed in (0, 1)
    ]
    for seed in (0, 1):
        assert torch.equal(chosen[seed], targets.random_targets(labels, predicted, 4, seed))
    assert not torch.equal(*chosen)
    assert not ((chosen[0] == labels) | (chosen[0] == predicted)).any()
    assert torch.equal(
        minimum_distortion(network, images, "random", labels=labels, batch=3).targets, chosen[0]
    )


def test_the_second_class_is_the_most_likely_beside_the_label_and_the_prediction():
    network, images = small_network(), random_images(8, PIXELS)
    order = network(images).argsort(dim=1, descending=True)
    result = minimum_distortion(network, images, "second")
    assert torch.equal(result.targets, order[:, 1])
    assert torch.equal(network(result.images).argmax(1), order[:, 1])
    labels = torch.where(torch.arange(8) % 2 == 0, order[:, 1], order[:, 2])
    wanted = torch.where(torch.arange(8) % 2 == 0, order[:, 2], order[:, 1])
    assert torch.equal(minimum_distortion(network, images, "second", labels=labels).targets, wanted)


@pytest.mark.parametrize("policy", ["random", "second"])
@BY_EITHER_METHOD
def test_a_policy_attacks_as_its_targets_would_be(method, policy):
    network, images = small_network(), random_images(6, PIXELS)
    chosen = minimum_distortion(network, images, policy, method=method)
    given_ = minimum_distortion(network, images, chosen.targets, method=method)
    assert chosen.success.all()
    assert torch.equal(chosen.images, given_.images)


@BY_EITHER_METHOD
def test_nearest_is_the_minimum_over_the_other_classes(method):
    network, images = small_network(), random_images(5, PIXELS)
    predicted = network(images).argmax(1)
    labels = predicted.clone()
    labels[1] = (predicted[1] + 2) % 4
    best = minimum_distortion(network, images, "nearest", labels=labels, method=method)
    assert best.success.all()
    assert not ((best.targets == labels) | (best.targets == predicted)).any()
    assert torch.equal(network(best.images).argmax(1), best.targets)
    assert (best.images - images).square().mean(1).sqrt().numpy() == pytest.approx(best.distortion.numpy())
    tolerance = 0.03 if isinstance(method, LBFGS) else 1e-9  # by the search over c, see the invariances
    for row in range(5):
        classes = torch.tensor([k for k in range(4) if k not in (labels[row], predicted[row])])
        each = minimum_distortion(network, images[row].expand(len(classes), -1), classes, method=method)
        assert best.distortion[row].item() == pytest.approx(each.distortion.min().item(), rel=tolerance)
        assert each.distortion[classes == best.targets[row]].item() == pytest.approx(
            each.distortion.min().item(), rel=0.03
        )


@BY_EITHER_METHOD
def test_nearest_counts_the_evaluations_of_all_classes(method):
    network, images = small_network().double(), random_images(3, PIXELS).double()
    if isinstance(method, LBFGS):
        method = replace(method, rounded=True)  # lest a row be searched otherwise beside others
    predicted = network(images).argmax(1)
    best = minimum_distortion(network, images, "nearest", method=method)
    total = torch.zeros(3, dtype=torch.long)
    for target in range(4):
        rows = (predicted != target).nonzero().squeeze(1)
        if len(rows):
            result = minimum_distortion(network, images[rows], torch.full_like(rows, target), method=method)
            total[rows] += result.gradient_evaluations
    assert best.gradient_evaluations.tolist() == total.tolist()


@BY_EITHER_METHOD
def test_nearest_where_no_class_can_be_reached_finds_nothing(method):
    w, network = linear(1)
    network[1].bias.data[1] = -2 * w.abs().sum()  # no image in the box gets to class 1
    images = random_images(3, PIXELS)
    best = minimum_distortion(network, images, "nearest", method=method)
    is_not_found(best, images, range(3))
    assert best.targets.tolist() == [1, 1, 1]


def test_nearest_takes_the_one_class_that_can_be_reached():
    network, images = small_network(), random_images(6, PIXELS)
    network[-1].bias.data[2:] = -1e3
    predicted = network(images).argmax(1)
    best = minimum_distortion(network, images, "nearest")
    assert best.success.all()
    assert torch.equal(best.targets, 1 - predicted)


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_nearest_does_not_depend_on_the_batch_size(batch):
    network, images = small_network(), random_images(5, PIXELS)
    whole = minimum_distortion(network, images, "nearest")
    parts = minimum_distortion(network, images, "nearest", batch=batch)
    assert torch.equal(whole.targets, parts.targets)
    assert torch.equal(whole.gradient_evaluations, parts.gradient_evaluations)
    assert whole.images.numpy() == pytest.approx(parts.images.numpy(), abs=1e-9)


@pytest.mark.parametrize("policy", ["random", "second", "nearest"])
def test_of_two_classes_the_one_that_the_model_does_not_say_is_the_target(policy):
    _, network = linear(1)
    images = random_images(3, PIXELS)
    predicted = network(images).argmax(1)
    assert torch.equal(minimum_distortion(network, images, policy, labels=predicted).targets, 1 - predicted)
    labels = predicted.clone()
    labels[1] = 1 - labels[1]
    found = minimum_distortion(network, images, policy, labels=labels)
    assert torch.equal(found.targets, 1 - predicted)
    assert found.success.all()


# Wrong input


class Answers(nn.Module):
    """A network whose logits become something else."""

    def __init__(self, answer, network=None):
        super().__init__()
        self.network, self.answer = network or small_network(), answer

    def forward(self, images):
        return self.answer(self.network(images))


class Asserts(nn.Module):
    def forward(self, images):
        raise AssertionError("wrong height")


class Scaled(nn.Module):
    """Pixels of a box that begins at `low` and is `width` wide, as pixels from 0 to 1."""

    def __init__(self, low, width):
        super().__init__()
        self.low, self.width = low, width

    def forward(self, images):
        return (images - self.low) / self.width


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = small_network()

    def forward(self, images):
        images -= 0.5
        return self.network(images)


class Fails(nn.Module):
    def forward(self, images):
        raise RuntimeError


def with_a_wrong_weight(value):
    network = small_network()
    network[1].weight.data[3, 2] = value
    return network


def with_a_wrong_buffer(value):
    network = nn.Sequential(nn.BatchNorm1d(PIXELS), *small_network()).double().eval()
    network[0].running_mean[5] = value
    return network


def with_a_part_in_training_mode():
    network = nn.Sequential(*list(small_network())[:-1], nn.Dropout(), small_network()[-1]).eval()
    network[-2].train()
    return network


def with_pixel(value, dtype=torch.float64):
    images = random_images(3, PIXELS, dtype=dtype)
    images[1, 4] = value
    return images


class Root(nn.Module):
    def forward(self, images):
        return images.sqrt()


def over_a_module_in_training_mode():
    hidden = nn.Sequential(nn.BatchNorm1d(PIXELS), *small_network()).double().train()
    return lambda images: hidden(images)


BY_THE_BATCH = nn.Sequential(nn.BatchNorm1d(PIXELS, track_running_stats=False), small_network()).eval()
NAN, INF = float("nan"), float("inf")
IMAGES, CLASSES = random_images(3, PIXELS), torch.tensor([0, 1, 2])
WRONG_FOR_BOTH = {
    "a pixel above": ({"images": with_pixel(1.01)}, r"an image has a value outside \[0.0, 1.0\], or NaN"),
    "a pixel below": ({"images": with_pixel(-0.01)}, r"an image has a value outside \[0.0, 1.0\], or NaN"),
    "a NaN pixel": ({"images": with_pixel(NAN)}, r"an image has a value outside \[0.0, 1.0\], or NaN"),
    "an infinite pixel": ({"images": with_pixel(INF)}, r"an image has a value outside \[0.0, 1.0\], or NaN"),
    "other bounds": ({"bounds": (0.4, 0.6)}, r"an image has a value outside \[0.4, 0.6\], or NaN"),
    "no images": ({"images": IMAGES[:0], "targets": CLASSES[:0]}, "there are no images"),
    "one number": ({"images": torch.tensor(0.5).double()}, "image"),
    "integer images": (
        {"images": (255 * IMAGES).to(torch.uint8)},
        "the images are torch.uint8: give float32 or float64",
    ),
    "half precision": ({"images": IMAGES.half()}, "the images are torch.float16: give float32 or float64"),
    "an array": ({"images": IMAGES.numpy()}, "the images are ndarray: give a tensor"),
    "another shape": (
        {"images": random_images(3, 17)},
        r"does not take torch.float64 images \(17,\): mat1 and mat2 shapes",
    ),
    "another precision": (
        {"images": IMAGES.float()},
        r"does not take torch.float32 images \(16,\): mat1 and mat2",
    ),
    "too large a target": (
        {"targets": torch.tensor([0, 1, 4])},
        "target 4 is none of the model's 4 classes, 0 to 3",
    ),
    "a negative target": (
        {"targets": torch.tensor([0, -1, 2])},
        "target -1 is none of the model's 4 classes, 0 to 3",
    ),
    "too few targets": (
        {"targets": CLASSES[:2]},
        r"targets are torch.int64 \(2,\): give one class for each of 3 images",
    ),
    "one-hot targets": (
        {"targets": torch.eye(4).long()[:3]},
        r"targets are torch.int64 \(3, 4\): give one class for each",
    ),
    "float targets": ({"targets": CLASSES.float()}, r"targets are torch.float32 \(3,\): give .* as integers"),
    "boolean targets": ({"targets": CLASSES > 1}, r"targets are torch.bool \(3,\): give .* as integers"),
    "a list of targets": ({"targets": [0, 1, 2]}, "targets are list: give one class for each of 3 images"),
    "no targets": ({"targets": None}, "targets are NoneType: give one class for each of 3 images"),
    "a negative margin": ({"margin": -0.1}, "margin is -0.1: it has to be 0 or larger"),
    "a NaN margin": ({"margin": NAN}, "margin is nan: it has to be 0 or larger"),
    "an empty batch": ({"batch": 0}, "batch is 0: it has to be 1 at least"),
    "bounds reversed": ({"bounds": (1.0, 0.0)}, r"bounds are \(1.0, 0.0\): give the smaller one first"),
    "bounds alike": ({"bounds": (1.0, 1.0)}, r"bounds are \(1.0, 1.0\): give the smaller one first"),
    "NaN bounds": ({"bounds": (NAN, 1.0)}, r"bounds are \(nan, 1.0\)"),
    "training mode": ({"model": small_network().train()}, r"training mode: call model.eval\(\) first"),
    "a part in training mode": (
        {"model": with_a_part_in_training_mode()},
        r"training mode: call model.eval\(\) first",
    ),
    "a NaN weight": (
        {"model": with_a_wrong_weight(NAN)},
        "the model's 1.weight has a value that is NaN or infinite",
    ),
    "an infinite weight": (
        {"model": with_a_wrong_weight(-INF)},
        "the model's 1.weight has a value that is NaN or infinite",
    ),
    "a NaN buffer": (
        {"model": with_a_wrong_buffer(NAN)},
        "the model's 0.running_mean has a value that is NaN",
    ),
    "probabilities": (
        {"model": Answers(lambda logits: logits.softmax(1)).eval()},
        "returns probabilities, which sum to 1",
    ),
    "NaN logits": ({"model": Answers(lambda logits: logits * NAN).eval()}, "returns NaN or infinite logits"),
    "infinite logits": (
        {"model": Answers(lambda logits: logits.exp() / 0).eval()},
        "returns NaN or infinite logits",
    ),
    "a tuple": (
        {"model": Answers(lambda logits: (logits, logits)).eval()},
        r"returns tuple for 3 images: .* \(b, k\) logits",
    ),
    "a sum": (
        {"model": Answers(lambda logits: logits.sum(1)).eval()},
        r"returns \(3,\) for 3 images: .* \(b, k\) logits",
    ),
    "one class": (
        {"model": Answers(lambda logits: logits[:, :1]).eval()},
        r"returns \(3, 1\) for 3 images: .* k ≥ 2",
    ),
    "a map": (
        {"model": Answers(lambda logits: logits[..., None]).eval()},
        r"returns \(3, 4, 1\) for 3 images",
    ),
    "fewer rows": ({"model": Answers(lambda logits: logits[:2]).eval()}, r"returns \(2, 4\) for 3 images"),
    "no gradients": ({"model": Answers(torch.detach).eval()}, "gradient"),
    "the batch's own statistics, for one image": (
        {"model": BY_THE_BATCH, "images": IMAGES[:1], "targets": CLASSES[:1]},
        "the model's 0 normalises by the batch's own statistics",
    ),
    "a function over statistics of the batch, for one image": (
        {"model": over_a_module_in_training_mode(), "images": IMAGES[:1], "targets": CLASSES[:1]},
        "Expected more than 1 value|when it is asked again|when others are beside it",
    ),
    "a function over statistics of the batch, for equal images": (
        {
            "model": over_a_module_in_training_mode(),
            "images": IMAGES[:1].repeat(6, 1),
            "targets": CLASSES[:1].repeat(6),
        },
        "when it is asked again|when others are beside it|Expected more than 1 value",
    ),
    "half a batch": ({"batch": 2.5}, r"batch is 2\.5: it has to be 1 at least, a whole number"),
    "a batch in words": ({"batch": "8"}, "batch is '8': it has to be 1 at least, a whole number"),
    "half a thread": ({"threads": 1.5}, r"threads is 1\.5: it has to be 1 at least, a whole number"),
    "a margin in words": ({"margin": "a"}, "margin is 'a': it has to be 0 or larger"),
    "sigmoids": (
        {"model": Answers(torch.sigmoid).eval(), "images": random_images(8, PIXELS), "targets": None},
        "as probabilities do",
    ),
    "a root at 0": (
        {"model": nn.Sequential(Root(), small_network()).eval(), "images": IMAGES.round()},
        "the gradient of the model's logits is NaN or infinite",
    ),
    "logits of another scale": (
        {"model": Answers(lambda logits: 1e-7 * logits).eval()},
        r"margin is 0\.0001, and the model's logits differ by .*e-0. at most: return them times some number",
    ),
    "clamps its images": (
        {"model": nn.Sequential(nn.Hardtanh(0, 1), small_network()).eval(), "images": IMAGES.round()},
        "no gradient where pixels are on their bounds, as one that clamps its images: leave that out",
    ),
    "changes in place what is already so": (
        {"model": nn.Sequential(nn.ReLU(inplace=True), small_network()).eval()},
        "the model has no gradient with respect to its images: a leaf Variable",
    ),
    "changes in place": ({"model": InPlace().eval()}, "the model changes the images that it is given"),
    "logits of another precision": (
        {"model": Answers(torch.Tensor.float).eval()},
        r"returns torch.float32 for torch.float64 images: it has to compute in their precision",
    ),
    "images of inference mode": (
        {"images": torch.inference_mode()(IMAGES.clone)()},
        r"torch.inference_mode\(\) has no gradients",
    ),
    "no model": (
        {"model": "resnet18"},
        "the model is str: give a module, or a function of images that returns logits",
    ),
    "bounds by channel": (
        {"bounds": (torch.zeros(3), torch.ones(3))},
        "give two numbers for all pixels, and put what differs",
    ),
    "one bound": ({"bounds": 1.0}, "bounds are 1.0: give two numbers for all pixels"),
    "chance": (
        {"model": Answers(functional.dropout).eval()},
        "other logits when it is asked again: .*functional.dropout",
    ),
    "noise": (
        {"model": Answers(lambda logits: logits + 0.1 * torch.randn_like(logits)).eval()},
        "other logits when it is asked again",
    ),
    "the others' mean": (
        {"model": Answers(lambda logits: logits - logits.mean(0)).eval()},
        "other logits for an image when others are beside it",
    ),
    "the place in the batch": (
        {
            "model": Answers(
                lambda logits: logits + 0.02 * torch.arange(len(logits))[:, None] * torch.eye(4)[0]
            ).eval()
        },
        "other logits for an image when others are beside it, or in another order",
    ),
    "every second image": (
        {"model": Answers(lambda logits: logits * (1 - 2 * (torch.arange(len(logits)) % 2))[:, None]).eval()},
        "other logits for an image when others are beside it, or in another order",
    ),
    "many others' mean": (
        {
            "model": Answers(lambda logits: logits - logits.mean(0) * (len(logits) > 8)).eval(),
            "images": IMAGES.repeat(4, 1),
            "targets": CLASSES.repeat(4),
        },
        "other logits for an image when others are beside it",
    ),
    "noise as small as the margin": (
        {"model": Answers(lambda logits: logits + 1e-4 * torch.randn_like(logits)).eval()},
        "other logits when it is asked again",
    ),
    "logits as small as the margin": (
        {"model": Answers(lambda logits: 1e-5 * logits).eval()},
        r"margin is 0\.0001, and the model's logits differ by .* at most: return them times some number",
    ),
    "an assertion": (
        {"model": Asserts().eval()},
        r"does not take torch\.float64 images \(\d+,\): wrong height",
    ),
    "an axis that is dropped": (
        {"model": Answers(torch.squeeze).eval()},
        r"returns \(4,\) for one image alone, not \(1, 4\): .* squeeze\(\)",
    ),
    "one number of images alone": (
        {"model": Answers(lambda logits: logits.view(3, 4)).eval()},
        "does not take one image: .*; let it take any number",
    ),
    "one image alone": (
        {
            "model": Answers(lambda logits: logits.view(1, 4)).eval(),
            "images": IMAGES[:1],
            "targets": CLASSES[:1],
        },
        "does not take 2 images: .*; let it take any number",
    ),
    "a failure without a reason": ({"model": Fails().eval()}, "does not take torch.float64 images"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG_FOR_BOTH.values(), ids=WRONG_FOR_BOTH)
@pytest.mark.parametrize("attempt", ["minimum_distortion", "refine"])
def test_wrong_input_is_refused_with_the_reason(attempt, changes, message):
    given_ = {"model": small_network(), "images": IMAGES, "targets": CLASSES} | changes
    if attempt == "refine":
        given_["adversarial"] = given_["images"]
    with pytest.raises(ValueError, match=message):
        getattr(core, attempt)(**given_)


def test_a_function_is_a_model_and_numbers_of_numpy_are_bounds():
    network = small_network()
    wanted = minimum_distortion(network, IMAGES, CLASSES)
    found = minimum_distortion(
        lambda images: network(images), IMAGES, CLASSES, bounds=np.array([0, 1], dtype=np.float32)
    )
    assert all(
        torch.equal(a, b) or torch.allclose(a, b, equal_nan=True) for a, b in zip(found, wanted, strict=True)
    )
    bounds = torch.tensor([0.0, 1.0])
    assert refine(lambda images: network(images), IMAGES, found.images, CLASSES, bounds=bounds).success.all()


def test_examples_that_leave_the_box_by_rounding_are_refined():
    network = small_network()
    found = minimum_distortion(network, IMAGES.round(), CLASSES, method="lbfgs")
    assert ((found.images == 0) | (found.images == 1)).any()
    beyond = found.images + torch.where(found.images > 0.5, 1e-8, -1e-8)
    refined = refine(network, IMAGES.round(), beyond, CLASSES)
    assert refined.success.all()
    assert ((refined.images >= 0) & (refined.images <= 1)).all()
    with pytest.raises(ValueError, match="an adversarial image has a value outside"):
        refine(network, IMAGES.round(), beyond + 1e-3, CLASSES)


def test_a_model_that_changes_images_in_place_leaves_those_of_the_caller_alone():
    images = IMAGES.clone()
    with pytest.raises(ValueError, match="in place"):
        minimum_distortion(InPlace().eval(), images, CLASSES)
    assert torch.equal(images, IMAGES)


def test_inference_mode_is_refused():
    with (
        torch.inference_mode(),
        pytest.raises(ValueError, match=r"torch.inference_mode\(\) has no gradients"),
    ):
        minimum_distortion(small_network(), IMAGES, CLASSES)


def test_a_seed_is_a_whole_number():
    for seed in (1.5, None, True, 2**70):
        with pytest.raises(ValueError, match=f"seed is {seed}: give a whole number"):
            minimum_distortion(small_network(), IMAGES, "random", seed=seed)
    one, other = (
        minimum_distortion(small_network(), IMAGES, "random", seed=seed) for seed in (3, np.int64(3))
    )
    assert torch.equal(one.targets, other.targets)


def test_rounded_logits_are_refused_before_they_crash():
    network = small_network(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="autocast is on"):
        minimum_distortion(lambda images: network(images).float(), IMAGES.float(), "nearest")


def test_a_model_that_was_made_without_gradients_is_refused():
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(PIXELS, 4)).double().eval()
    with pytest.raises(ValueError, match=r"the model was made in torch.inference_mode\(\)"):
        minimum_distortion(model, IMAGES, CLASSES)


def test_an_image_that_leaves_the_box_by_rounding_is_attacked():
    images = IMAGES.clone()
    images[0, 0] = -2.98e-8
    assert minimum_distortion(small_network(), images, CLASSES).success.all()
    with pytest.raises(ValueError, match=r"or NaN: -0\.00100003; scale the images"):
        minimum_distortion(small_network(), images - 1e-3 * (images <= images.min()), CLASSES)


@BY_EITHER_METHOD
def test_gradients_that_are_one_number_in_all_places_are_as_good_as_others(method):
    class OfTheSum(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(1, 3).double()
            self.last.weight.data = torch.tensor([[1.0], [-1.0], [0.2]]).double()

        def forward(self, images):
            return self.last(images.flatten(1).sum(1, keepdim=True) - PIXELS / 2) + 5

    model = OfTheSum().eval()
    result = minimum_distortion(model, IMAGES, other_targets(model, IMAGES), method=method)
    assert torch.equal(result.success, model(result.images).argmax(1) == result.targets)


@BY_EITHER_METHOD
@pytest.mark.parametrize("policy", ["random", "nearest"])
def test_another_default_device_changes_nothing(method, policy):
    network = small_network()
    wanted = minimum_distortion(network, IMAGES, policy, method=method)
    torch.set_default_device("meta")
    try:
        found = minimum_distortion(network, IMAGES, policy, method=method)
    finally:
        torch.set_default_device(None)
    assert all(equal(a, b) for a, b in zip(found, wanted, strict=True))


class Masked(nn.Module):
    """With an infinite buffer that does no harm, and state that is no tensor."""

    def __init__(self):
        super().__init__()
        self.network = small_network()
        self.register_buffer("mask", torch.tensor([0.0, -INF]))

    def get_extra_state(self):
        return {"version": 1}

    def forward(self, images):
        return self.network(images) + self.mask[0]


OTHER_KINDS = {
    "traced": lambda: torch.jit.trace(small_network(), IMAGES),
    "frozen": lambda: torch.jit.freeze(torch.jit.trace(small_network(), IMAGES)),
    "exported": lambda: torch.export.export(
        small_network(), (IMAGES,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    ).module(),
    "compiled": lambda: torch.compile(small_network(), backend="aot_eager"),
    "masked": lambda: Masked().eval(),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore::DeprecationWarning")
@BY_EITHER_METHOD
@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_models_of_other_kinds_are_attacked(kind, method):
    model = OTHER_KINDS[kind]()
    classes = other_targets(small_network(), IMAGES)
    result = minimum_distortion(model, IMAGES, classes, method=method)
    assert result.success.all()
    assert result.distortion.numpy() == pytest.approx(
        minimum_distortion(small_network(), IMAGES, classes, method=method).distortion.numpy(), rel=1e-6
    )


@BY_EITHER_METHOD
def test_an_image_for_which_the_model_says_nan_is_no_success(method):
    images = random_images(101, PIXELS)
    images[100] = 1
    classes = torch.zeros(101, dtype=torch.long)
    network = small_network()
    model = Answers(lambda logits: logits, network).eval()
    model.forward = lambda images: torch.where((images.amin(1) == 1)[:, None], NAN, network(images))
    result = minimum_distortion(model, images, classes, method=method)
    assert result.success[:100].all()
    assert not result.success[100]
    assert result.distortion[100].isnan()


WRONG_FOR_ATTACKS = {
    "an unknown method": (
        {"method": "fgsm"},
        r"method is 'fgsm': use one of sqp, lbfgs, or SQP\(...\) or LBFGS\(...\)",
    ),
    "no method": ({"method": None}, "method is None: use one of sqp, lbfgs"),
    "a class of options": (
        {"method": SQP},
        "method is <class 'blindspots.attack.sqp.SQP'>: use one of sqp, lbfgs",
    ),
    "an unknown policy": (
        {"targets": "farthest"},
        "targets are 'farthest': give class labels or one of random, second, near",
    ),
    "too few labels": (
        {"targets": "second", "labels": CLASSES[:2]},
        r"labels are torch.int64 \(2,\): give one class for each",
    ),
    "float labels": (
        {"targets": "nearest", "labels": CLASSES.float()},
        r"labels are torch.float32 \(3,\): give .* integers",
    ),
    "too large a label": (
        {"targets": "random", "labels": CLASSES + 2},
        "label 4 is none of the model's 4 classes, 0 to 3",
    ),
    "a negative label": (
        {"targets": "nearest", "labels": CLASSES - 1},
        "label -1 is none of the model's 4 classes, 0 to 3",
    ),
    "a list of labels": (
        {"targets": "second", "labels": [0, 1, 2]},
        "labels are list: give one class for each of 3 images",
    ),
}


@pytest.mark.parametrize(("changes", "message"), WRONG_FOR_ATTACKS.values(), ids=WRONG_FOR_ATTACKS)
def test_a_wrong_choice_is_refused_with_the_reason(changes, message):
    with pytest.raises(ValueError, match=message):
        minimum_distortion(small_network(), **{"images": IMAGES, "targets": CLASSES} | changes)


@pytest.mark.parametrize("method", ["fgsm", LBFGS()], ids=["an unknown one", "LBFGS"])
def test_refinement_refuses_other_methods(method):
    network = small_network()
    adversarial = minimum_distortion(network, IMAGES, CLASSES).images
    with pytest.raises(ValueError, match="method is"):
        refine(network, IMAGES, adversarial, CLASSES, method=method)


@BY_EITHER_METHOD
def test_log_probabilities_are_as_good_as_logits(method):
    network, images = small_network(shape=(PIXELS, 5)), pictures(6)
    classes = other_targets(network, images)
    logarithms = Answers(lambda logits: logits.log_softmax(1), network).eval()
    one, two = (minimum_distortion(model, images, classes, method=method) for model in (network, logarithms))
    same(one, two, 0.01 if isinstance(method, LBFGS) else 2e-4)  # by the search over c, see the invariances


def test_logits_that_are_all_positive_or_sum_to_one_are_accepted():
    images = random_images(4, PIXELS)
    rows = {"dim": 1, "keepdim": True}
    for answer in (
        lambda logits: logits - logits.amin(**rows) + 1,
        lambda logits: logits - logits.mean(**rows) + 0.25,
    ):
        model = Answers(answer).eval()
        assert minimum_distortion(model, images, other_targets(model, images)).success.all()


# Batches and progress


def memory(monkeypatch, available):
    monkeypatch.setattr(core.psutil, "virtual_memory", lambda: SimpleNamespace(available=available))


def test_small_images_are_worked_on_together_as_far_as_a_cpu_gains_by_it(monkeypatch):
    network = architectures.frozen(architectures.fully_connected([28, 28], [100, 100, 10], "sigmoid"))
    images = torch.zeros(3, 28, 28)
    memory(monkeypatch, 2**40)
    assert core._Parts.of(network, images, None, 1).size == 512


def test_what_a_network_keeps_for_its_gradients_counts(monkeypatch):
    memory(monkeypatch, 2**40)
    images = torch.zeros(3, 28, 28)
    narrow, wide = (
        architectures.frozen(architectures.fully_connected([28, 28], [units, units, units, 10], "sigmoid"))
        for units in (10, 10_000)
    )
    assert core._Parts.of(wide, images, None, 1).size < core._Parts.of(narrow, images, None, 1).size


def test_what_a_method_keeps_of_each_image_counts(monkeypatch):
    memory(monkeypatch, 2**40)
    network = architectures.frozen(architectures.fully_connected([28, 28], [10, 10], "sigmoid"))
    asked = [LBFGS(history=3), LBFGS(history=100), SQP(), SQP(competitors=9), SQP(max_rounds=200)]
    vectors = [core._vectors(options, 1000) for options in asked]
    assert vectors[0] == vectors[2] == 40
    assert vectors[1] > 2 * 200
    assert vectors[3] > 3 * 2 * 9
    assert vectors[4] > 3 * 900
    images = torch.zeros(3, 28, 28)
    sizes = [core._Parts.of(network, images, None, 1, each).size for each in vectors]
    assert sizes[1] < sizes[0]


def test_huge_images_are_as_few_as_fit_into_half_of_the_memory(monkeypatch):
    network = nn.Sequential(nn.AvgPool2d(64), nn.Flatten(), nn.Linear(3 * 16, 2)).eval()
    images = torch.zeros(1, 3, 256, 256)
    counts = []
    for available in (2**40, 2**31, 2**30, 2**29, 2**26, 2**20, 0.5):
        memory(monkeypatch, available)
        counts.append(core._Parts.of(network, images, None, 1).size)
    bytes_of_one = 4 * 3 * 256 * 256
    assert counts[0] == 32  # fewer would be slower
    assert counts == sorted(counts, reverse=True)
    assert all(count & (count - 1) == 0 for count in counts)
    assert counts[-1] == counts[-2] == 1
    assert counts[3] * core._VECTORS * bytes_of_one <= 2**28
    assert len(set(counts)) >= 4


def test_little_memory_gives_the_same_results_in_smaller_parts(monkeypatch):
    network, images = small_network(), random_images(5, PIXELS)
    classes, lines = other_targets(network, images), []
    whole = minimum_distortion(network, images, classes)
    memory(monkeypatch, 1000)
    parts = minimum_distortion(
        network, images, classes, report=lambda text, *values: lines.append(text % values)
    )
    assert len(lines) == 5
    assert parts.images.numpy() == pytest.approx(whole.images.numpy(), abs=1e-9)
    lines.clear()
    refine(network, images, whole.images, classes, report=lambda text, *values: lines.append(text % values))
    assert len(lines) == 5


@pytest.mark.parametrize("targets", ["random", "nearest", CLASSES])
def test_no_more_images_than_a_batch_are_given_to_the_model_at_once(targets):
    network, seen = small_network(), []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    result = minimum_distortion(network, IMAGES, targets, batch=2)
    assert result.success.all()
    assert max(seen) <= 2


def test_progress_is_reported_with_what_is_done():
    lines = []
    network, images = small_network(), random_images(5, PIXELS)
    classes = other_targets(network, images)
    result = minimum_distortion(
        network, images, classes, batch=2, report=lambda text, *values: lines.append(text % values)
    )
    assert [line.split(",")[0] for line in lines] == ["2 of 5 images", "4 of 5 images", "5 of 5 images"]
    assert lines[-1].endswith(f"mean distortion {result.distortion.mean():.4f}")


@pytest.mark.parametrize("norm", ["l2", "squared_l2"])
@pytest.mark.parametrize("times", [1e2, 1e4])
def test_larger_logits_of_the_same_network_lead_no_further(norm, times):
    network, images = (
        small_network(),
        (2 * random_images(20, PIXELS) - 0.5).clamp(0, 1),
    )  # with many pixels on bounds
    classes = other_targets(network, images)
    larger = Answers(lambda logits: times * logits, network).eval()
    one, other = (
        minimum_distortion(model, images, classes, method=LBFGS(norm=norm)) for model in (network, larger)
    )
    assert other.success.all()
    assert (other.distortion <= 1.01 * one.distortion).all()


# Threads


@BY_EITHER_METHOD
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_number_of_threads_changes_nothing(method, dtype):
    network, images = small_network(dtype=dtype), random_images(13, PIXELS, dtype=dtype)
    classes = other_targets(network, images)
    one = minimum_distortion(network, images, classes, method=method, batch=3)
    refined = refine(network, images, one.images, classes, batch=3)
    for threads in (2, 3, 8):
        copies = {"threads": threads, "processes": threads == 3 and can_fork()}
        more = minimum_distortion(network, images, classes, method=method, batch=3, **copies)
        assert all(equal(a, b) for a, b in zip(more, one, strict=True))
        again = refine(network, images, one.images, classes, batch=3, **copies)
        assert all(equal(a, b) for a, b in zip(again, refined, strict=True))


def equal(one, other):
    return torch.equal(one.nan_to_num(-1), other.nan_to_num(-1))


def test_nearest_classes_do_not_depend_on_the_number_of_threads():
    network, images = small_network(), random_images(7, PIXELS)
    one, three = (
        minimum_distortion(network, images, "nearest", batch=6, threads=threads) for threads in (1, 3)
    )
    assert all(equal(a, b) for a, b in zip(one, three, strict=True))


def test_batches_are_worked_on_at_the_same_time_as_far_as_they_fit_into_the_memory(monkeypatch):
    network, images = small_network(), random_images(64, PIXELS)
    memory(monkeypatch, 2**40)
    assert core._Parts.of(network, images, 16, 8) == (16, 8)
    three_fit = 2 * 3 * 16 * core._bytes_in_work(network, images)
    memory(monkeypatch, three_fit)
    assert core._Parts.of(network, images, 16, 8) == (16, 3)
    memory(monkeypatch, 0)
    assert core._Parts.of(network, images, 16, 8) == (16, 1)


def test_threads_do_not_make_the_batches_smaller(monkeypatch):
    network, images = small_network(), random_images(64, PIXELS)
    memory(monkeypatch, 2**16)
    assert len({core._Parts.of(network, images, None, threads).size for threads in (1, 2, 8)}) == 1


def test_there_is_one_thread_at_least():
    with pytest.raises(ValueError, match="threads is 0: it has to be 1 at least"):
        minimum_distortion(small_network(), IMAGES, CLASSES, threads=0)
