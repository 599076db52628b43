"""Search the settings for each method of training a 100-100-10 network.

    python benchmarks/settings_search.py --units relu

It trains hundreds of networks side by side on 50,000 of the training images. Each has its own settings, drawn
at random. The other 10,000 training images judge them. Then it trains the best of each method once more, from
eight seeds. No test image takes part in a decision. The methods are those of `adversarial_training` in
config/config.yaml, except pools: in their place, steps go towards the nearest other class. With --configured,
the settings are also those of that file. With --epochs, you see how many epochs they need. On an H100, 250
networks take a minute and a half. On a CPU, try a few: --candidates 2 --seeds 1. The images are those of
results/data.h5:

    snakemake --cores 1 results/data.h5
"""

import argparse
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from blindspots.config.loading import validated
from blindspots.data import splits
from blindspots.steps import image_sets

LAYERS = ((784, 100), (100, 100), (100, 10))
VALIDATION = {"training": [0, 50_000], "validation": [50_000, 60_000]}
MINIBATCH = 128
BETAS, EPSILON = (0.9, 0.999), 1e-8
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ALL = ("pixels", "first", "second")  # the outputs that may be perturbed, layer by layer
METHODS = {  # the outputs that each perturbs, and whether it has dropout
    "decay": ((), False),
    "dropout": ((), True),
    "input": (ALL[:1], False),
    "hidden": (ALL[1:], False),
    "steps": (ALL, False),
    "nearest": (ALL, False),
    "steps_dropout": (ALL, True),
}
RANGES = {  # of the settings, drawn uniformly on a logarithmic scale
    "relu": {"rate": (1e-3, 1e-2), "decay": (1e-6, 3e-4), "pixels": (0.5, 2.5), "hidden": (0.1, 2.0)},
    "sigmoid": {"rate": (3e-3, 3e-2), "decay": (1e-6, 3e-4), "pixels": (0.5, 2.5), "hidden": (0.03, 0.6)},
}
DROPOUT = {"pixels": (0.02, 0.3), "hidden": (0.01, 0.3)}


def drawn(method: str, units: str, count: int, random: np.random.Generator) -> pd.DataFrame:
    """Draw candidates.

    Each has a learning rate, a weight decay, the norms of the perturbations of the three outputs, and the
    dropout rates of pixels and of units.
    """
    moved, drops = METHODS[method]
    ranges = RANGES[units]

    def evenly(low: float, high: float, wanted: bool = True) -> np.ndarray:
        return np.exp(random.uniform(np.log(low), np.log(high), count)) * wanted

    return pd.DataFrame(
        {
            "method": method,
            "rate": evenly(*ranges["rate"]),
            "decay": evenly(*ranges["decay"]),
            **{place: evenly(*ranges.get(place, ranges["hidden"]), wanted=place in moved) for place in ALL},
            "drop_pixels": evenly(*DROPOUT["pixels"], wanted=drops),
            "drop_units": evenly(*DROPOUT["hidden"], wanted=drops),
        }
    )


def configured(units: str) -> pd.DataFrame:
    """The settings of config/config.yaml for each method.

    Steps towards the nearest other class have the settings of pools.
    """
    networks = validated(yaml.safe_load(Path("config/config.yaml").read_text())).networks
    rows = []
    for method in METHODS:
        network = networks[f"{units}_{'pools' if method == 'nearest' else method}"]
        norms = network.perturbed.norms if network.perturbed else [0.0] * len(ALL)
        drop_pixels, drop_units = network.dropout[:2] if network.dropout else (0.0, 0.0)
        rate, decay = network.minibatches.learning_rate, network.weight_decay[0]
        rows.append([method, rate, decay, *norms, drop_pixels, drop_units])
    return pd.DataFrame(rows, columns=["method", "rate", "decay", *ALL, "drop_pixels", "drop_units"])


class Networks:
    """A set of n networks, each with its own settings. They are the first dimension of every tensor."""

    def __init__(self, settings: pd.DataFrame, units: str, seed: int):
        self.n, self.units = len(settings), units
        self.moved = [place for place, name in enumerate(ALL) if settings[name].any()]
        self.drops = bool(settings["drop_pixels"].any())
        values = {
            key: torch.tensor(settings[key].to_numpy(np.float32)).view(-1, 1, 1).to(DEVICE)
            for key in settings.columns[1:]
        }
        self.norms, self.decay, self.rate = [values[name] for name in ALL], values["decay"], values["rate"]
        self.dropout = [values["drop_pixels"], values["drop_units"], values["drop_units"]]
        self.nearest = torch.tensor((settings["method"] == "nearest").to_numpy(np.float32)).to(DEVICE)
        generator = torch.Generator().manual_seed(seed)
        bounds = [math.sqrt(6 / (i + o)) for i, o in LAYERS]  # Glorot's initialisation
        shapes = [(self.n, i, o) for i, o in LAYERS]
        weights = [
            bound * (2 * torch.rand(shape, generator=generator) - 1)
            for bound, shape in zip(bounds, shapes, strict=True)
        ]
        self.weights = [weight.to(DEVICE).requires_grad_() for weight in weights]
        self.biases = [torch.zeros(self.n, 1, o, device=DEVICE, requires_grad=True) for _, o in LAYERS]
        self.parameters = [*self.weights, *self.biases]
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in self.parameters]

    def outputs(self, h: Tensor, place: int = 0, drops: bool = False) -> list[Tensor]:
        """The outputs from a place on, for its output h (n, b, units).

        They are h itself, the outputs of the layers above it, and last the logits (n, b, 10).
        """
        found = [h]
        for layer in range(place, len(LAYERS)):
            if drops:
                rate = self.dropout[layer]
                h = h * (torch.rand_like(h) >= rate) / (1 - rate)
            h = torch.baddbmm(self.biases[layer], h, self.weights[layer])
            if layer < len(LAYERS) - 1:
                h = torch.relu(h) if self.units == "relu" else torch.sigmoid(h)
            found.append(h)
        return found

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The sum over the networks of their losses, for images (b, 784) with one-hot labels (b, 10)."""
        outputs = self.outputs(images.expand(self.n, -1, -1).detach().requires_grad_(), drops=self.drops)
        logits = outputs[-1]
        total = cross_entropy(logits, labels)
        if self.moved:
            most = (logits - 1e9 * labels).amax(2) - (logits * labels).sum(2)  # the lead over the label
            uphill = torch.where(self.nearest > 0, most.sum(1), len(images) * total).sum()
            gradients = torch.autograd.grad(
                uphill, [outputs[place] for place in self.moved], retain_graph=True
            )
            for place, gradient in zip(self.moved, gradients, strict=True):
                norm, high = self.norms[place], 1.0 if place == 0 or self.units == "sigmoid" else math.inf
                moved = (outputs[place].detach() + norm * normalize(gradient, dim=2)).clamp(0, high)
                added = cross_entropy(self.outputs(moved, place, self.drops)[-1], labels)
                total = total + torch.where(norm.view(-1) > 0, added, 0)
        penalty = sum(weight.square().sum((1, 2)) for weight in self.weights)
        return (total + self.decay.view(-1) / 2 * penalty).sum()

    @torch.no_grad()
    def step(self, gradients: tuple[Tensor, ...], done: Tensor, steps: int) -> None:
        """Take a step of Adam. Its learning rate falls to 0 along a cosine.

        done: the number of steps before this one.
        """
        rate = self.rate * (1 + torch.cos(math.pi * done / steps)) / 2
        corrections = [1 - beta ** (done + 1) for beta in BETAS]
        for parameter, gradient, mean, square in zip(
            self.parameters, gradients, self.means, self.squares, strict=True
        ):
            mean.lerp_(gradient, 1 - BETAS[0])
            square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            parameter -= rate / corrections[0] * mean / ((square / corrections[1]).sqrt() + EPSILON)

    @torch.no_grad()
    def errors(self, images: Tensor, labels: Tensor) -> np.ndarray:
        """The percentage of images (m, 784) that each network misclassifies, (n,)."""
        wrong = torch.zeros(self.n, device=DEVICE)
        for x, y in zip(images.split(2000), labels.split(2000), strict=True):
            wrong += (self.outputs(x.expand(self.n, -1, -1))[-1].argmax(2) != y).sum(1)
        return (100 * wrong / len(images)).cpu().numpy()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy over the images for each network, (n,)."""
    return -(logits.log_softmax(2) * labels).sum(2).mean(1)


def judged(
    settings: pd.DataFrame, units: str, epochs: int, seed: int, images: Mapping[str, tuple[Tensor, Tensor]]
) -> np.ndarray:
    """Train networks with these settings and return their validation errors in %."""
    torch.manual_seed(seed)
    networks = Networks(settings, units, seed)
    x, labels = images["training"]
    y = one_hot(labels, 10).float()
    whole = len(x) // MINIBATCH
    steps = epochs * whole
    order = torch.zeros(whole * MINIBATCH, dtype=torch.long, device=DEVICE)
    within = torch.arange(MINIBATCH, device=DEVICE)
    done = torch.zeros((), dtype=torch.long, device=DEVICE)

    def step() -> None:
        rows = order[done % whole * MINIBATCH + within]
        networks.step(torch.autograd.grad(networks.loss(x[rows], y[rows]), networks.parameters), done, steps)
        done.add_(1)

    def shuffle() -> None:
        order.copy_(torch.randperm(len(x))[: len(order)])

    shuffle()
    first = 0
    # A step of such small networks is hundreds of short kernels. One CUDA graph starts them all together.
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(first := 3):
                step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        step = graph.replay
    for epoch in range(epochs):
        for _ in range(whole - first * (epoch == 0)):
            step()
        shuffle()
    return networks.errors(*images["validation"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--units", choices=RANGES, default="relu")
    parser.add_argument("--configured", action="store_true", help="judge the settings of config/config.yaml")
    parser.add_argument("--candidates", type=int, default=64, help="of each method")
    parser.add_argument("--kept", type=int, default=6, help="of each method, for the second round")
    parser.add_argument("--seeds", type=int, default=8, help="of that round")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--data", type=Path, default=Path("results/data.h5"))
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = True  # its rounding errors matter less than another seed
    pixels, labels = image_sets.read(arguments.data, "train")
    images = {
        part: (
            torch.from_numpy(pixels[rows]).flatten(1).to(DEVICE),
            torch.from_numpy(labels[rows]).long().to(DEVICE),
        )
        for part, rows in splits.split(len(pixels), VALIDATION, seed=0).items()
    }
    if arguments.configured:
        print(from_seeds(configured(arguments.units), arguments, 7, images), flush=True)
        return
    random = np.random.default_rng(0)
    for number, method in enumerate(METHODS):
        candidates = drawn(method, arguments.units, arguments.candidates, random)
        errors = judged(candidates, arguments.units, arguments.epochs, 100 + number, images)
        best = candidates.iloc[errors.argsort()[: arguments.kept]]
        print(from_seeds(best, arguments, 200 + number, images), flush=True)


def from_seeds(settings: pd.DataFrame, arguments: argparse.Namespace, seed: int, images: Mapping) -> str:
    """The settings with the mean and the standard deviation of their validation errors, the best first."""
    each = settings.loc[settings.index.repeat(arguments.seeds)]
    errors = judged(each, arguments.units, arguments.epochs, seed, images).reshape(-1, arguments.seeds)
    spread = errors.std(1, ddof=1) if arguments.seeds > 1 else np.nan
    found = settings.assign(mean=errors.mean(1), std=spread).sort_values("mean")
    return found.to_string(index=False, float_format=lambda value: f"{value:.3g}")


if __name__ == "__main__":
    main()
