"""The section networks."""

import math
import operator
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from blindspots.config.data import File, Sources
from blindspots.config.types import PICTURES, Count, NonNegative, Positive, Section, Seed


class Network(Section):
    """What every network has: the keys that define what is built, and those that say where its weights come from."""

    _NOT_BUILT: ClassVar[tuple[str, ...]]

    @property
    def images(self) -> str:
        """What it classifies: the images of `data`, or the pictures."""
        return "data"

    @property
    def linear(self) -> bool:
        return False

    def definition(self) -> dict[str, Any]:
        """What is built (see `blindspots.networks.architectures.build`)."""
        return self.model_dump(mode="json", exclude={*self._NOT_BUILT})


class Trained(Network):
    """A network that the workflow trains."""

    units: Annotated[list[Count], Field(min_length=1)]
    activation: Literal["sigmoid", "relu", "tanh"]
    trained_on: str
    weight_decay: list[NonNegative]
    seed: Seed
    attack: dict[Literal["lbfgs", "sqp"], dict[str, Any]] = Field(default_factory=dict)

    _NOT_BUILT: ClassVar = ("trained_on", "weight_decay", "seed", "pretraining", "minibatches", "perturbed", "attack")

    @property
    def classes(self) -> int:
        return self.units[-1]

    def training(self) -> dict[str, Any]:
        """How it is trained."""
        return self.model_dump(mode="json", include={*self._NOT_BUILT} - {"attack"})

    @property
    def in_minibatches(self) -> bool:
        return bool(self.training().get("minibatches"))

    def _one_decay_each(self, layers: int) -> None:
        if len(self.weight_decay) != layers:
            raise ValueError(f"weight_decay has {len(self.weight_decay)} values for {layers} trained layers: give one each")


class Pretrained(Network):
    """A network that comes trained, whose weights are a file."""

    classes: Count
    mean: Annotated[list[float], Field(min_length=3, max_length=3)]
    std: Annotated[list[Positive], Field(min_length=3, max_length=3)]
    weights: File
    sources: Sources

    _NOT_BUILT: ClassVar = ("weights", "sources")

    @property
    def images(self) -> str:
        return PICTURES

    def multiplications(self, image_shape: Sequence[int]) -> int:
        """For one image, in the weights; about, as it only tells which jobs are long."""
        return 500_000_000


class Pretraining(Section):
    """Options of the sparse autoencoder, as in `blindspots.training.autoencoder`."""

    sparsity: Annotated[Positive, Field(lt=1)]
    sparsity_weight: NonNegative
    weight_decay: NonNegative
    max_iterations: Count
    history: Count


class Minibatches(Section):
    """Options of training by minibatches, as in `blindspots.training.minibatches`."""

    size: Count
    epochs: Count
    learning_rate: Positive


class Perturbed(Section):
    """Options of training with perturbed outputs of the layers, as in `blindspots.training.perturbed`."""

    norms: list[NonNegative]
    weight: Positive

    @model_validator(mode="after")
    def _perturbs_something(self):
        if not any(self.norms):
            raise ValueError(
                f"norms: {self.norms} perturb nothing: give one of them more than 0, or leave it out altogether"
            )
        return self

    def passes(self, images: int) -> int:
        """Through the network, for one over so many images; about, as it only tells which jobs are long."""
        return 1 + sum(norm > 0 for norm in self.norms)


class Steps(Perturbed):
    kind: Literal["steps"]


class RandomSteps(Perturbed):
    kind: Literal["noise"]


class Pools(Perturbed):
    kind: Literal["pools"]
    amplified: bool
    size: Count
    replaced: Positive
    batch: Count

    @model_validator(mode="after")
    def _fits(self):
        if self.batch > self.size:
            raise ValueError(f"batch: {self.batch} examples at a time do not fit in a pool of {self.size}")
        return self

    def passes(self, images: int) -> int:
        gradients = 5 * self.replaced * self.size / images  # to make the examples of a layer, for an image
        return round(super().passes(images) * (1 + gradients))


class FullyConnected(Trained):
    kind: Literal["fully_connected"]
    dropout: list[Annotated[NonNegative, Field(le=0.99)]] = Field(default_factory=list)
    pretraining: Pretraining | None = None
    minibatches: Minibatches | None = None
    perturbed: Annotated[Steps | RandomSteps | Pools, Field(discriminator="kind")] | None = None

    @property
    def linear(self) -> bool:
        return len(self.units) == 1

    def multiplications(self, image_shape: Sequence[int]) -> int:
        """For one image, in the weights."""
        inputs = [math.prod(image_shape), *self.units]
        return sum(map(operator.mul, inputs, self.units)) + (self.pretraining is not None) * inputs[0] * inputs[1]

    @model_validator(mode="after")
    def _consistent(self):
        self._one_decay_each(len(self.units) - (self.pretraining is not None))
        if self.pretraining and (len(self.units) < 2 or self.activation != "sigmoid"):
            raise ValueError("pretraining is of a sigmoid layer with others above: give two units at least, and sigmoid")
        if self.pretraining and self.minibatches:
            raise ValueError("what is pretrained is trained to convergence: leave out pretraining, or minibatches")
        if (self.dropout or self.perturbed) and not self.minibatches:
            raise ValueError("dropout and perturbed are of training in minibatches: give minibatches")
        for key, values in {"dropout": self.dropout, "perturbed.norms": getattr(self.perturbed, "norms", [])}.items():
            if values and len(values) != len(self.units):
                raise ValueError(
                    f"{key}: {len(values)} values for the input and {len(self.units) - 1} hidden layers: one each"
                )
        return self


class Convolutional(Trained):
    kind: Literal["convolutional"]
    channels: Count
    kernel: Count
    pool: Count
    dropout: Annotated[NonNegative, Field(le=0.99)]
    minibatches: Minibatches

    def multiplications(self, image_shape: Sequence[int]) -> int:
        """For one image, in the weights."""
        maps = [size - self.kernel + 1 for size in image_shape]
        inputs = [self.channels * math.prod(size // self.pool for size in maps), *self.units]
        return math.prod(maps) * self.channels * self.kernel**2 + sum(map(operator.mul, inputs, self.units))

    @model_validator(mode="after")
    def _consistent(self):
        self._one_decay_each(1 + len(self.units))
        return self


class AlexNet(Pretrained):
    kind: Literal["alexnet"]


class EfficientNetLite(Pretrained):
    kind: Literal["efficientnet_lite"]
    width: Positive
    depth: Positive
