"""A GPU computes what a CPU does, but for the order of its sums; `assert_agree` states how far that may carry."""

import copy

import pytest
import torch

from blindspots import networks, training
from blindspots.attack import minimum_distortion, refine
from blindspots.recompute import ONE_LEVEL

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")

IMAGES = torch.rand(100, 28, 28, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(0, 10, (100,), generator=torch.Generator().manual_seed(1))
TARGETS = (LABELS + 1) % 10


@pytest.fixture(autouse=True)
def full_precision():
    """As `device.prepare` has it: TF32 rounds by more than the margin of an adversarial example."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="module", params=["fully connected", "convolutional"])
def network(request):
    if request.param == "convolutional":
        definition = {"kind": "convolutional", "channels": 8, "kernel": 5, "pool": 3, "units": [128, 10]}
        definition |= {"activation": "relu", "dropout": 0.5}
    else:
        definition = {"kind": "fully_connected", "units": [100, 100, 10], "activation": "sigmoid"}
    network = networks.build(definition, (28, 28))
    networks.initialise(network, torch.Generator().manual_seed(0))
    for layer in networks.weight_layers(network):
        layer.weight.data *= 3  # so that its answers differ between images
    return networks.frozen(network)


def on(device, network, act, images=IMAGES):
    """The same on the CPU or the GPU, with the result on the CPU."""
    network.to(device)
    result = act(network, images.to(device), LABELS.to(device), TARGETS.to(device))
    network.to("cpu")
    return result


def mirrored(network):
    """The same function, but of mirrored images: its sums run the other way."""
    network = copy.deepcopy(network)
    for layer in network:
        if isinstance(layer, torch.nn.Conv2d):
            layer.weight.data = layer.weight.data.flip(-1)
        if isinstance(layer, torch.nn.Linear):  # the first of them, whose inputs are a picture or its channels
            side = 8 if isinstance(network[1], torch.nn.Conv2d) else 28
            pictures = layer.weight.data.view(len(layer.weight), -1, side, side)
            layer.weight.data = pictures.flip(-1).flatten(1)
            return network


def assert_agree(network, act):
    """The GPU's distortions are the CPU's but for ONE_LEVEL.

    Or, where a network has kinks, at which rounding sends an attack to another local minimum, they are no further off
    than the CPU's are from its own with the sums in another order: half of them three times as far, the mean by three
    standard errors.
    """
    here, there = on("cpu", network, act), on("cuda", network, act)
    otherwise = on("cpu", mirrored(network), act, IMAGES.flip(-1))
    assert (there.success.cpu() == here.success).all()
    moved = here.success & (here.distortion > 0)
    off, usual = (torch.log(found.distortion.cpu().double() / here.distortion)[moved] for found in (there, otherwise))
    assert off.abs().median() < max(ONE_LEVEL.distortion, 3 * usual.abs().median())
    assert off.mean().abs() < max(ONE_LEVEL.distortion, 3 * usual.std() / len(usual) ** 0.5)


def test_gradients_of_training_agree(network):
    def gradient(network, images, labels, targets):
        parameters = [parameter.requires_grad_() for parameter in network.parameters()]
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        return training.flat(torch.autograd.grad(loss, parameters)).cpu()

    here, there = on("cpu", network, gradient), on("cuda", network, gradient)
    networks.frozen(network)
    assert (here - there).norm() < 1e-5 * here.norm()


@pytest.mark.parametrize("method", ["lbfgs", "sqp"])
def test_attacks_agree(network, method):
    def attack(network, images, labels, targets):
        return minimum_distortion(network, images, targets, method=method)

    assert_agree(network, attack)


def test_refinements_agree(network):
    def refined(network, images, labels, targets):
        found = minimum_distortion(network, images, targets, method="lbfgs")
        return refine(network, images, found.images, targets)

    assert_agree(network, refined)


def test_what_a_gpu_holds_it_works_on_at_once(network):
    batches = []

    def attack(network, images, labels, targets):
        return minimum_distortion(network, images, targets, report=lambda *said: batches.append(said))

    on("cuda", network, attack)
    assert len(batches) == 1
