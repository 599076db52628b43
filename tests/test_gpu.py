"""A GPU computes what a CPU does, but for the order of its
sums; how far that may carry is stated in `recompute`."""

import copy
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from blindspots.attack.core import minimum_distortion, refine
from blindspots.attack.penalty import LBFGS
from blindspots.attack.sqp import SQP
from blindspots.audit.recompute import ONE_LEVEL
from blindspots.networks import architectures
from blindspots.networks.flattening import flat
from blindspots.steps.examples import PRECISIONS

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")

ATTACK = yaml.safe_load((Path(__file__).parents[1] / "config/config.yaml").read_text())["attack"]
PAPERS, SQUARED = (
    LBFGS(**ATTACK["lbfgs"] | {"norm": norm}, rounded=True) for norm in ("l2", "squared_l2")
)  # as jobs do it
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
    network = architectures.build(definition, (28, 28))
    architectures.initialise(network, torch.Generator().manual_seed(0))
    for layer in architectures.weight_layers(network):
        layer.weight.data *= 3  # so that its answers differ between images
    return architectures.frozen(network)


@pytest.fixture
def attacked(network):
    """In the precision in which the workflow attacks it."""
    return copy.deepcopy(network).to(PRECISIONS[ATTACK["precision"]])


def on(device, network, act):
    """The same on the CPU or the GPU, with the result on the CPU."""
    network.to(device)
    precision = next(network.parameters()).dtype
    result = act(network, IMAGES.to(device, precision), LABELS.to(device), TARGETS.to(device))
    network.to("cpu")
    return result


class Mirrored(nn.Module):
    """The same function of the images, with its sums over their pixels the other way round."""

    def __init__(self, network):
        super().__init__()
        self.network = copy.deepcopy(network)
        first, second, *_ = architectures.weight_layers(self.network)
        if isinstance(first, nn.Conv2d):
            first.weight.data = first.weight.flip(-2, -1)
            maps = second.weight.view(
                len(second.weight), len(first.weight), -1
            )  # (units, maps, pooled pixels)
            second.weight.data = maps.flip(-1).reshape(second.weight.shape)
        else:
            first.weight.data = first.weight.flip(-1)

    def forward(self, images):
        return self.network(images.flip(-2, -1))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
@pytest.mark.parametrize("method", [PAPERS, SQUARED, SQP()])
def test_every_example_is_the_same_whatever_the_order_of_sums(attacked, method, device):
    def distortions(network, images, labels, targets):
        found = minimum_distortion(network, images, targets, method=method)
        refined = refine(network, images, found.images, targets)
        return torch.stack([found.distortion, refined.distortion]).cpu()

    here = on("cpu", attacked, distortions)
    there = on(device, architectures.frozen(Mirrored(attacked)), distortions)
    assert here.isfinite().all()
    assert ((there - here).abs() <= 1e-9 * here).all()


@needs_gpu
def test_gradients_of_training_agree(network):
    def gradient(network, images, labels, targets):
        parameters = [parameter.requires_grad_() for parameter in network.parameters()]
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        return flat(torch.autograd.grad(loss, parameters)).cpu()

    here, there = on("cpu", network, gradient), on("cuda", network, gradient)
    architectures.frozen(network)
    assert (here - there).norm() < 1e-5 * here.norm()


@needs_gpu
@pytest.mark.parametrize("method", [PAPERS, SQP()])
def test_attacks_agree(attacked, method):
    def attack(network, images, labels, targets):
        return minimum_distortion(network, images, targets, method=method)

    here, there = on("cpu", attacked, attack), on("cuda", attacked, attack)
    assert (there.success.cpu() == here.success).all()
    assert there.distortion.nanmean().item() == pytest.approx(
        here.distortion.nanmean().item(), rel=ONE_LEVEL.distortion
    )


@needs_gpu
def test_refinements_agree(attacked):
    def refined(network, images, labels, targets):
        found = minimum_distortion(network, images, targets, method=PAPERS)
        return refine(network, images, found.images, targets)

    here, there = on("cpu", attacked, refined), on("cuda", attacked, refined)
    assert there.distortion.nanmean().item() == pytest.approx(
        here.distortion.nanmean().item(), rel=ONE_LEVEL.distortion
    )


@needs_gpu
def test_refinements_of_the_same_examples_agree(network):
    start = minimum_distortion(network, IMAGES, TARGETS, method="lbfgs").images

    def refined(network, images, labels, targets):
        return refine(network, images, start.to(images.device), targets)

    here, there = on("cpu", network, refined), on("cuda", network, refined)
    assert there.distortion.nanmean().item() == pytest.approx(
        here.distortion.nanmean().item(), rel=ONE_LEVEL.distortion
    )


@needs_gpu
@pytest.mark.parametrize("method", ["lbfgs", "sqp"])
def test_means_are_off_by_no_more_than_chance_lets_a_mean_of_so_few_images_vary(network, method):
    """In single precision, beyond that tolerance: rounding decides
    there in which of several near minima an attack ends."""

    def attack(network, images, labels, targets):
        return minimum_distortion(network, images, targets, method=method).distortion.cpu().double()

    here, there = on("cpu", network, attack), on("cuda", network, attack)
    difference = (there - here)[~here.isnan()]
    chance = 3 * difference.std() / len(difference) ** 0.5
    assert difference.mean().abs() <= ONE_LEVEL.distortion * here.nanmean() + chance


@needs_gpu
def test_what_a_gpu_holds_it_works_on_at_once(network):
    batches = []

    def attack(network, images, labels, targets):
        return minimum_distortion(network, images, targets, report=lambda *said: batches.append(said))

    on("cuda", network, attack)
    assert len(batches) == 1
