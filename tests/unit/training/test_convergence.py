"""Training to the minimum of the mean cross-entropy with weight decay."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from blindspots.networks import architectures
from blindspots.training import convergence, full_batch
from blindspots.training.total_loss import decay

IMAGES = torch.rand(60, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.randint(0, 3, (60,), generator=torch.Generator().manual_seed(1))
DECAY = 0.02
OPTIONS = {"gradient_tolerance": 1e-6}


def network_of(units, dtype=torch.float64, seed=0):
    network = architectures.fully_connected([6], units, "sigmoid")
    architectures.initialise(network, torch.Generator().manual_seed(seed))
    return network.to(dtype)


def fit(network, **changes):
    dtype = network[1].weight.dtype
    options = OPTIONS | {"weight_decay": [DECAY] * len(architectures.weight_layers(network))} | changes
    return convergence.fit(network, IMAGES.to(dtype), LABELS, **options)


@pytest.fixture(params=["working_set", "full_batch"], autouse=True)
def method(request, monkeypatch):
    """Every test is of both methods; of so few images the working set is all of them."""
    monkeypatch.setitem(OPTIONS, "method", request.param)
    return request.param


def softmax_loss(flat, strength):
    """Mean cross-entropy + strength Σ w² of a linear classifier, and its gradient, by hand."""
    weight, bias = flat[:18].reshape(3, 6), flat[18:]
    x, y = IMAGES.reshape(60, -1).numpy(), LABELS.numpy()
    logits = x @ weight.T + bias
    norm = logsumexp(logits, axis=1)
    slope = np.exp(logits - norm[:, None])
    slope[np.arange(60), y] -= 1
    gradient = np.concatenate([(slope.T @ x / 60 + 2 * strength * weight).ravel(), slope.mean(0)])
    return (norm - logits[np.arange(60), y]).mean() + strength * np.square(weight).sum(), gradient


@pytest.mark.parametrize(
    ("convention", "wanted"),
    # Σ w² is 1 + 4 + 9 = 14 in the first layer, of one unit, and 16 + 25 = 41 in the second, of two.
    [
        ("half", 0.1 * 14 / 2 + 0.01 * 41 / 2),
        ("per_unit", 0.1 * 14 / 1 + 0.01 * 41 / 2),
        ("plain", 0.1 * 14 + 0.01 * 41),
    ],
)
def test_decay_is_the_sum_of_its_convention_without_biases(convention, wanted):
    network = architectures.fully_connected([3], [1, 2], "sigmoid")
    first, second = architectures.weight_layers(network)
    first.weight.data = torch.tensor([[1.0, -2.0, 3.0]])
    second.weight.data = torch.tensor([[4.0], [-5.0]])
    first.bias.data.fill_(100)
    second.bias.data.fill_(100)
    assert decay(network, [0.1, 0.01], convention).item() == pytest.approx(wanted)


@pytest.mark.parametrize("weights", [[0.1], [0.1] * 3])
def test_decay_needs_one_weight_for_each_layer(weights):
    with pytest.raises(ValueError, match="weight decays for 2 layers"):
        decay(network_of([4, 3]), weights, "half")


@pytest.mark.parametrize(
    ("convention", "strength"), [("half", DECAY / 2), ("per_unit", DECAY / 3), ("plain", DECAY)]
)
def test_a_softmax_classifier_reaches_the_minimum_of_its_convex_loss(convention, strength):
    network = network_of([3])
    result = fit(network, decay_convention=convention)
    options = {"gtol": 1e-9}
    wanted = minimize(softmax_loss, np.zeros(21), args=(strength,), jac=True, method="BFGS", options=options)
    assert result.converged
    assert result.history[-1].loss == pytest.approx(wanted.fun, abs=1e-9)
    assert network[1].weight.detach().numpy().ravel() == pytest.approx(wanted.x[:18], abs=1e-3)


def test_the_default_convention_is_half():
    one, other = network_of([3]), network_of([3])
    fit(one)
    fit(other, decay_convention="half")
    assert torch.equal(one[1].weight, other[1].weight)


def test_the_gradient_is_below_the_tolerance_when_converged():
    network = network_of([4, 3])
    result = fit(network, gradient_tolerance=1e-4)
    assert result.converged
    loss = torch.nn.functional.cross_entropy(network(IMAGES), LABELS) + decay(network, [DECAY] * 2, "half")
    gradients = torch.autograd.grad(loss, network.parameters())
    assert max(part.abs().max().item() for part in gradients) <= 1e-4
    assert result.history[-1].gradient_norm == pytest.approx(
        sum(part.square().sum() for part in gradients).sqrt().item()
    )


def test_the_last_state_is_that_of_the_trained_network():
    network = network_of([4, 3])
    last = fit(network).history[-1]
    loss = torch.nn.functional.cross_entropy(network(IMAGES), LABELS) + decay(network, [DECAY] * 2, "half")
    assert last.loss == pytest.approx(loss.item(), rel=1e-12)
    assert last.error == pytest.approx((network(IMAGES).argmax(1) != LABELS).double().mean().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loss_never_rises_and_evaluations_are_counted(dtype, method):
    history = fit(network_of([8, 3], dtype), weight_decay=[1e-5] * 2, max_iterations=100).history
    losses = [state.loss for state in history]
    assert (np.diff(losses) <= 1e-6 * losses[0] * (dtype == torch.float32)).all()
    assert (np.diff([state.evaluations for state in history]) >= 1).all()
    assert (
        history[0].evaluations == 1 if method == "working_set" else history[0].evaluations >= 2
    )  # which has no start


@pytest.mark.parametrize("limit", [1, 5])
def test_there_are_no_more_iterations_than_are_allowed_and_each_is_on_record(limit, method):
    result = fit(network_of([8, 3]), max_iterations=limit, gradient_tolerance=1e-12)
    assert len(result.history) == limit + (method == "working_set")  # which has the start, too
    assert not result.converged
    assert result.message


def test_training_that_rounding_stops_has_not_converged_and_says_why():
    # No gradient this small can be reached: the end is where rounding stops every step.
    result = fit(network_of([3], torch.float32), gradient_tolerance=1e-12)
    assert len(result.history) < 2000
    assert not result.converged
    assert result.message
    assert "CONVERGENCE" not in result.message


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("history", 0),
        ("history", 1.5),
        ("max_iterations", 0),
        ("gradient_tolerance", 0.0),
        ("method", "adam"),
    ],
)
def test_limits_with_which_nothing_is_trained_are_refused(limit, value):
    with pytest.raises(ValueError, match=rf"{limit} is '?{value}'?: (it has to be|use one of)"):
        fit(network_of([3]), **{limit: value})


def test_where_scipy_gives_up_the_record_is_of_the_point_that_it_returns(monkeypatch):
    def gives_up(function, start, **options):
        function(start + 1)  # a trial that it does not take, whose loss and gradient it then says
        return SimpleNamespace(x=start, fun=0.0, jac=np.zeros_like(start), message="ABNORMAL: ")

    monkeypatch.setattr(full_batch, "minimize", gives_up)
    network = network_of([4, 3])
    loss = torch.nn.functional.cross_entropy(network(IMAGES), LABELS) + decay(network, [DECAY] * 2, "half")
    result = fit(network, method="full_batch")
    assert not result.converged
    assert result.history[-1].loss == pytest.approx(loss.item())


def test_training_lowers_the_loss_and_its_error_is_the_training_error():
    history = fit(network_of([12, 3]), weight_decay=[0.0, 0.0], max_iterations=300).history
    assert history[-1].loss < 0.5 * history[0].loss
    assert history[-1].error < history[0].error
    assert all(60 * state.error == pytest.approx(round(60 * state.error)) for state in history)


def test_the_same_start_gives_the_same_bytes_twice():
    one, other = network_of([8, 3], torch.float32), network_of([8, 3], torch.float32)
    assert fit(one, max_iterations=50) == fit(other, max_iterations=50)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_every_record_is_reported(method):
    lines = []
    result = fit(network_of([3]), max_iterations=5, report=lambda text, *values: lines.append(text % values))
    unit = {"working_set": "pass", "full_batch": "iteration"}[method]
    assert [line.split(":")[0] for line in lines] == [f"{unit} {n + 1}" for n in range(len(result.history))]
