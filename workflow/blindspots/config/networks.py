"""The section `networks` of the configuration."""

import math
import operator
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, WithJsonSchema, model_validator

from blindspots.config.data import File, Sources
from blindspots.config.types import PICTURES, Count, NonNegative, Positive, Section, Seed

# The units as they are written. The module `loading` replaces the word `classes` by the number of classes.
_UNITS = {
    "type": "array",
    "minItems": 1,
    "items": {"anyOf": [{"type": "integer", "minimum": 1}, {"const": "classes"}]},
}


class Network(Section):
    """The common part of all networks: keys for what is built, and keys for where the weights come from."""

    _NOT_BUILT: ClassVar[tuple[str, ...]]

    @property
    def images(self) -> str:
        """The images that it classifies: `data` or `pictures`."""
        return "data"

    @property
    def linear(self) -> bool:
        """Whether it is a linear classifier."""
        return False

    def definition(self) -> dict[str, Any]:
        """Return the definition of what is built (see `blindspots.networks.architectures.build`).

        Returns:
            The values by key, as in JSON.
        """
        return self.model_dump(mode="json", exclude={*self._NOT_BUILT})


class Trained(Network):
    """A network that the workflow trains."""

    units: Annotated[list[Count], Field(min_length=1), WithJsonSchema(_UNITS)]
    """Units of each layer, from the input upwards. The word `classes` stands for data.classes."""
    activation: Literal["sigmoid", "relu", "tanh"]
    """What follows each layer but the last."""
    trained_on: str
    """A part of `splits.parts`, or train for all training images."""
    weight_decay: list[NonNegative]
    """λ of each trained layer, from the input upwards."""
    seed: Seed
    """The seed of the initial weights and of all draws in training."""
    attack: dict[Literal["lbfgs", "sqp"], dict[str, Any]] = Field(default_factory=dict)
    """The keys of `attack.lbfgs` and `attack.sqp` that differ for this network."""

    _NOT_BUILT: ClassVar = (
        "trained_on",
        "weight_decay",
        "seed",
        "pretraining",
        "minibatches",
        "perturbed",
        "attack",
    )

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.units[-1]

    def training(self) -> dict[str, Any]:
        """Return the keys for its training.

        Returns:
            The values by key, as in JSON.
        """
        return self.model_dump(mode="json", include={*self._NOT_BUILT} - {"attack"})

    @property
    def in_minibatches(self) -> bool:
        """Whether it is trained in minibatches, instead of to convergence by L-BFGS."""
        return bool(self.training().get("minibatches"))

    def _one_decay_each(self, layers: int) -> None:
        if len(self.weight_decay) != layers:
            raise ValueError(
                f"weight_decay has {len(self.weight_decay)} values for {layers} trained layers: give one each"
            )


class Pretrained(Network):
    """A pretrained network, whose weights are in a file."""

    classes: Count
    """How many classes the network knows."""
    mean: Annotated[list[float], Field(min_length=3, max_length=3)]
    """The mean of each colour that the network expects to be subtracted."""
    std: Annotated[list[Positive], Field(min_length=3, max_length=3)]
    """The standard deviation of each colour that it expects to be divided by."""
    weights: File
    """The file of its weights."""
    sources: Sources
    """Where this file may come from, tried in this order."""

    _NOT_BUILT: ClassVar = ("weights", "sources")

    @property
    def images(self) -> str:
        """The images that it classifies: `pictures`."""
        return PICTURES

    def multiplications(self, image_shape: Sequence[int]) -> int:
        """Estimate the multiplications with weights for one image.

        The estimate is rough. It only tells which jobs are long.

        Args:
            image_shape: Height and width of an image, in pixels.
        Returns:
            The number of multiplications.
        """
        return 500_000_000


class Pretraining(Section):
    """Options of the sparse autoencoder, as in `blindspots.training.autoencoder`."""

    sparsity: Annotated[Positive, Field(lt=1)]
    """The mean activation that is asked of each hidden unit."""
    sparsity_weight: NonNegative
    """The weight of the divergence from it."""
    weight_decay: NonNegative
    """λ of the autoencoder's two layers."""
    max_iterations: Count
    """Iterations of L-BFGS, at most."""
    history: Count
    """Pairs of a step and its change of the gradient that L-BFGS keeps."""


class Minibatches(Section):
    """Options of training by minibatches, as in `blindspots.training.minibatches`."""

    size: Count
    """Images in a minibatch."""
    epochs: Count
    """Passes over all images."""
    learning_rate: Positive
    """Adam's learning rate at the first step. It falls along half a cosine to 0."""


class Perturbed(Section):
    """Options of training with perturbed outputs of the layers, as in `blindspots.training.perturbed`."""

    norms: list[NonNegative]
    """The distortion of the pixels and of each hidden layer's outputs; 0 leaves a layer out."""
    weight: Positive
    """The weight of each layer's perturbed outputs in the loss, beside the images."""

    @model_validator(mode="after")
    def _perturbs_something(self):
        if not any(self.norms):
            raise ValueError(
                f"norms: {self.norms} perturb nothing: give one of them more than 0, "
                "or leave it out altogether"
            )
        return self

    def passes(self, images: int) -> int:
        """Estimate the passes through the network for one pass of an image.

        The estimate is rough. It only tells which jobs are long.

        Args:
            images: The number of training images.
        Returns:
            The number of passes.
        """
        return 1 + sum(norm > 0 for norm in self.norms)


class Steps(Perturbed):
    """Training with outputs that are perturbed along the gradient of the loss."""

    kind: Literal["steps"]
    """Perturb by a step along the loss's gradient."""


class RandomSteps(Perturbed):
    """Training with outputs that are perturbed in a random direction."""

    kind: Literal["noise"]
    """Perturb by a step in a random direction."""


class Pools(Perturbed):
    """Training with adversarial examples of each layer, from pools."""

    kind: Literal["pools"]
    """Perturb by adversarial examples of each layer, from pools (the paper's scheme)."""
    amplified: bool
    """true: bring examples to the norms. false: keep the nearest, and bring back those that are farther."""
    size: Count
    """Examples in a layer's pool, at most."""
    replaced: Positive
    """How many times this size is made anew in a pass over the images."""
    batch: Count
    """Examples made at a time."""

    @model_validator(mode="after")
    def _fits(self):
        if self.batch > self.size:
            raise ValueError(f"batch: {self.batch} examples at a time do not fit in a pool of {self.size}")
        return self

    def passes(self, images: int) -> int:
        """Estimate the passes through the network for one pass of an image, examples included.

        The estimate is rough. It only tells which jobs are long.

        Args:
            images: The number of training images.
        Returns:
            The number of passes.
        """
        gradients = 5 * self.replaced * self.size / images  # for the examples of a layer, per image
        return round(super().passes(images) * (1 + gradients))


class FullyConnected(Trained):
    """A network of fully connected layers."""

    kind: Literal["fully_connected"]
    """Linear layers with an activation between them."""
    dropout: list[Annotated[NonNegative, Field(le=0.99)]] = Field(default_factory=list)
    """The dropout rates of the pixels and of each hidden layer, or none."""
    pretraining: Pretraining | None = None
    """Options of the sparse autoencoder that the first layer is trained by; null for none."""
    minibatches: Minibatches | None = None
    """Options of training by Adam in minibatches; null for L-BFGS until convergence."""
    perturbed: Annotated[Steps | RandomSteps | Pools, Field(discriminator="kind")] | None = None
    """Options of training with perturbed outputs of the layers; null for none."""

    @property
    def linear(self) -> bool:
        """Whether it is a linear classifier, with a single layer."""
        return len(self.units) == 1

    def multiplications(self, image_shape: Sequence[int]) -> int:
        """Return the number of multiplications with weights for one image.

        Args:
            image_shape: Height and width of an image, in pixels.
        Returns:
            The number. It includes the decoder of a pretrained layer.
        """
        inputs = [math.prod(image_shape), *self.units]
        return (
            sum(map(operator.mul, inputs, self.units))
            + (self.pretraining is not None) * inputs[0] * inputs[1]
        )

    @model_validator(mode="after")
    def _consistent(self):
        self._one_decay_each(len(self.units) - (self.pretraining is not None))
        if self.pretraining and (len(self.units) < 2 or self.activation != "sigmoid"):
            raise ValueError(
                "pretraining is of a sigmoid layer with others above: give two units at least, and sigmoid"
            )
        if self.pretraining and self.minibatches:
            raise ValueError(
                "what is pretrained is trained to convergence: leave out pretraining, or minibatches"
            )
        if (self.dropout or self.perturbed) and not self.minibatches:
            raise ValueError("dropout and perturbed are of training in minibatches: give minibatches")
        for key, values in {
            "dropout": self.dropout,
            "perturbed.norms": getattr(self.perturbed, "norms", []),
        }.items():
            if values and len(values) != len(self.units):
                raise ValueError(
                    f"{key}: {len(values)} values for the input and {len(self.units) - 1} hidden layers: "
                    "one each"
                )
        return self


class Convolutional(Trained):
    """A network with one convolution."""

    kind: Literal["convolutional"]
    """A convolution, max pooling, and linear layers with dropout."""
    channels: Count
    """Channels of the convolution."""
    kernel: Count
    """Pixels of a side of its kernel."""
    pool: Count
    """Pixels of a side of a pooled square."""
    dropout: Annotated[NonNegative, Field(le=0.99)]
    """The dropout rate of the hidden units."""
    minibatches: Minibatches
    """Options of training by Adam in minibatches."""

    def multiplications(self, image_shape: Sequence[int]) -> int:
        """Return the number of multiplications with weights for one image.

        Args:
            image_shape: Height and width of an image, in pixels.
        Returns:
            The number.
        """
        maps = [size - self.kernel + 1 for size in image_shape]
        inputs = [self.channels * math.prod(size // self.pool for size in maps), *self.units]
        return math.prod(maps) * self.channels * self.kernel**2 + sum(map(operator.mul, inputs, self.units))

    @model_validator(mode="after")
    def _consistent(self):
        self._one_decay_each(1 + len(self.units))
        return self


class AlexNet(Pretrained):
    """The pretrained AlexNet of torchvision."""

    kind: Literal["alexnet"]
    """torchvision's AlexNet."""


class EfficientNetLite(Pretrained):
    """A pretrained EfficientNet-Lite."""

    kind: Literal["efficientnet_lite"]
    """EfficientNet-Lite."""
    width: Positive
    """The multiplier of the channels."""
    depth: Positive
    """The multiplier of the layers."""
