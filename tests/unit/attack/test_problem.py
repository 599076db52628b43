"""The problem D(x, l): leads, their linearisation, the loss, and
the count of gradients, against closed forms and differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from blindspots.attack.problem import Problem
from blindspots.networks import architectures

SHAPE, PIXELS, CLASSES = (2, 3), 6, 4


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def smooth_network(seed=0):
    network = architectures.fully_connected(SHAPE, [7, CLASSES], "tanh").double()
    architectures.initialise(network, torch.Generator().manual_seed(seed))
    return architectures.frozen(network)


def problem(images=5, seed=0, margin=0.0, bounds=(0.0, 1.0)):
    targets = torch.arange(images) % CLASSES
    return Problem(smooth_network(seed), drawn(images, *SHAPE, seed=seed), targets, bounds, margin)


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_the_lead_is_the_targets_logit_less_the_others_and_infinite_over_itself(seed):
    asked, points = problem(seed=seed), drawn(5, PIXELS, seed=seed + 1)
    logits = asked.model(points.view(5, *SHAPE)).numpy()
    leads = asked.leads(points, asked.rows)
    for row, target in enumerate(asked.targets.tolist()):
        for other in range(CLASSES):
            wanted = np.inf if other == target else logits[row, target] - logits[row, other]
            assert leads[row, other].item() == pytest.approx(wanted)


def test_rows_say_which_of_the_problems_the_points_are_of():
    asked, points = problem(), drawn(5, PIXELS, seed=1)
    some = torch.tensor([3, 1])
    assert asked.leads(points[some], some).numpy() == pytest.approx(
        asked.leads(points, asked.rows)[some].numpy()
    )
    assert asked.distance(points[some], some).numpy() == pytest.approx(
        asked.distance(points, asked.rows)[some].numpy()
    )
    for one, other in zip(asked.loss(points[some], some), asked.loss(points, asked.rows), strict=True):
        assert one.numpy() == pytest.approx(other[some].numpy())
    for one, other in zip(
        asked.linearised(points[some], some, 2), asked.linearised(points, asked.rows, 2), strict=True
    ):
        assert one.numpy() == pytest.approx(other[some].numpy())


@pytest.mark.parametrize(
    ("margin", "wanted"), [(0.0, [True, True, False]), (1.0, [True, False, False]), (1.5, [False] * 3)]
)
def test_a_point_holds_where_the_smallest_lead_is_the_margin_at_least(margin, wanted):
    # Leads of 1.25, 0.5 and -1 of class 0 over class 1, the class nearest to it.
    logits = torch.tensor([[1.25, 0.0, -9.0], [1.0, 0.5, -9.0], [0.0, 1.0, -9.0]]).double()
    asked = Problem(nn.Identity().eval(), logits, torch.zeros(3, dtype=torch.long), (-9.0, 9.0), margin)
    assert asked.holds(asked.x, asked.rows).tolist() == wanted


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_margin_is_what_was_asked_for_and_what_the_rounding_of_an_images_logits_comes_to(dtype):
    logits = torch.tensor([[0.5, 1.0], [1e4, -2e4]], dtype=dtype)
    asked = Problem(nn.Identity().eval(), logits, torch.zeros(2, dtype=torch.long), (-1e6, 1e6), 0.25)
    added = (asked.margin - 0.25) / torch.finfo(dtype).eps
    assert (added >= 4 * logits.abs().amax(1)).all()
    assert (added <= 100 * logits.abs().amax(1)).all()


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), competitors=st.integers(1, CLASSES - 1))
def test_the_linearisation_is_that_of_the_smallest_leads_in_their_order(seed, competitors):
    asked, points = problem(seed=seed), drawn(5, PIXELS, seed=seed + 1)
    leads = asked.leads(points, asked.rows)
    linear = asked.linearised(points, asked.rows, competitors)
    order = leads.argsort(dim=1)[:, :competitors]
    assert torch.equal(linear.classes, order)
    assert linear.leads.numpy() == pytest.approx(leads.gather(1, order).numpy())
    assert linear.gradients.shape == (5, competitors, PIXELS)
    step = 1e-6 * drawn(5, PIXELS, seed=seed + 2)
    change = asked.leads(points + step, asked.rows) - asked.leads(points - step, asked.rows)
    predicted = 2 * (linear.gradients @ step[:, :, None])[:, :, 0]
    assert predicted.numpy() == pytest.approx(change.gather(1, order).numpy(), rel=1e-6, abs=1e-14)


def test_the_offsets_say_where_the_linearised_leads_are_zero():
    asked, points = problem(), drawn(5, PIXELS, seed=1)
    linear = asked.linearised(points, asked.rows, 3)
    there = drawn(5, PIXELS, seed=2)
    wanted = linear.leads + (linear.gradients @ (there - points)[:, :, None])[:, :, 0]
    found = (linear.gradients @ there[:, :, None])[:, :, 0] - linear.offsets(points)
    assert found.numpy() == pytest.approx(wanted.numpy())


def test_more_competitors_than_there_are_means_all():
    asked = problem()
    linear = asked.linearised(asked.x, asked.rows, 10)
    assert linear.classes.shape == (5, CLASSES - 1)
    assert not (linear.classes == asked.targets[:, None]).any()
    assert asked.gradient_evaluations.tolist() == [CLASSES - 1] * 5


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_the_loss_is_the_cross_entropy_towards_the_target_and_its_gradient_the_derivative(seed):
    asked, points = problem(seed=seed), drawn(5, PIXELS, seed=seed + 1)
    losses, gradient, leads = asked.loss(points, asked.rows)
    assert torch.equal(leads, asked.leads(points, asked.rows).amin(1))
    logits = asked.model(points.view(5, *SHAPE)).numpy()
    wanted = np.log(np.exp(logits).sum(1)) - logits[np.arange(5), asked.targets.numpy()]
    assert losses.numpy() == pytest.approx(wanted)
    step = 1e-6 * drawn(5, PIXELS, seed=seed + 2)
    change = asked.loss(points + step, asked.rows)[0] - asked.loss(points - step, asked.rows)[0]
    assert 2 * torch.linalg.vecdot(gradient, step).numpy() == pytest.approx(
        change.numpy(), rel=1e-6, abs=1e-14
    )


def test_the_distance_is_the_length_of_the_distortion():
    asked, points = problem(), drawn(5, PIXELS, seed=1)
    wanted = np.sqrt(((points.numpy() - asked.x.numpy()) ** 2).sum(1))
    assert asked.distance(points, asked.rows).numpy() == pytest.approx(wanted)


def test_gradients_are_counted_for_the_images_that_they_are_of_and_nothing_else_is():
    asked = problem()
    asked.leads(asked.x, asked.rows)
    asked.holds(asked.x, asked.rows)
    assert asked.gradient_evaluations.tolist() == [0] * 5
    asked.loss(asked.x, asked.rows)
    assert asked.gradient_evaluations.tolist() == [1] * 5
    some = torch.tensor([0, 3])
    asked.loss(asked.x[some], some)
    assert asked.gradient_evaluations.tolist() == [2, 1, 1, 2, 1]
    asked.linearised(asked.x[some], some, 2)
    assert asked.gradient_evaluations.tolist() == [4, 1, 1, 4, 1]


def test_a_subset_has_the_same_problems_and_a_count_of_its_own():
    asked = problem(margin=0.25, bounds=(-1.0, 2.0))
    asked.loss(asked.x, asked.rows)
    some = torch.tensor([4, 1])
    rest = asked.subset(some)
    assert torch.equal(rest.x, asked.x[some])
    assert torch.equal(rest.targets, asked.targets[some])
    assert rest.leads(rest.x, rest.rows).numpy() == pytest.approx(
        asked.leads(asked.x, asked.rows)[some].numpy()
    )
    assert (rest.bounds, rest.shape) == ((-1.0, 2.0), SHAPE)
    assert torch.equal(rest.margin, asked.margin[some])
    assert rest.gradient_evaluations.tolist() == [0, 0]
    rest.loss(rest.x, rest.rows)
    assert asked.gradient_evaluations.tolist() == [1] * 5


def test_nothing_that_is_returned_hangs_on_a_graph():
    asked = problem()
    linear = asked.linearised(asked.x, asked.rows, 2)
    assert not any(values.requires_grad for values in (*linear, *asked.loss(asked.x, asked.rows), asked.x))


def test_the_model_gets_images_of_their_shape():
    seen = []
    asked = problem()
    asked.model.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape)))
    asked.leads(asked.x, asked.rows)
    asked.loss(asked.x, asked.rows)
    asked.linearised(asked.x, asked.rows, 1)
    assert seen == [(5, *SHAPE)] * 3
