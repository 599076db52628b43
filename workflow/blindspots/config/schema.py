"""The configuration of `config/*.yaml`. It is checked before any job starts. Unknown keys are errors."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from blindspots.config.ablations import REFERENCE, Ablations
from blindspots.config.data import MNIST, Data, Pictures, Splits
from blindspots.config.errors import ConfigError, check_known, check_unique, error_line
from blindspots.config.merging import merged
from blindspots.config.methods import Amplification, Attack, Evaluation, Noise, Training
from blindspots.config.networks import AlexNet, Convolutional, EfficientNetLite, FullyConnected, Trained
from blindspots.config.tables import BaselineTable, MethodsTable, Table, TransferTable, Units
from blindspots.config.types import PICTURES, Count, Name, Section
from blindspots.data.splits import split

# Files in results/ with these names do not belong to a table of the configuration.
_OTHER_RESULTS = {"ablations", "archive", "audit", "claims", "provenance", "report", "units"}


class Config(Section):
    """The configuration of the workflow."""

    data: Data
    """The data set, by default MNIST."""
    pictures: Pictures
    """Photographs, for networks that come trained on ImageNet."""
    splits: Splits
    """Parts of the training images."""
    networks: Annotated[
        dict[
            Name,
            Annotated[
                FullyConnected | Convolutional | AlexNet | EfficientNetLite, Field(discriminator="kind")
            ],
        ],
        Field(min_length=1),
    ]
    """The networks by name."""
    training: Training
    """How networks are trained by L-BFGS."""
    attack: Attack
    """How the nearest adversarial examples are found."""
    noise: Noise
    """Gaussian noise, for comparison."""
    amplification: Amplification
    """Distortions brought to one standard deviation: x + stddev (x' - x) / ‖x' - x‖, with the root mean \
square as norm."""
    evaluation: Evaluation
    """How networks classify images."""
    tables: Annotated[
        dict[Name, Annotated[Table, Field(discriminator="kind")]],
        Field(min_length=1),
    ]
    """The tables and figures by name."""
    units: Units
    """The images that activate units most (Section 3)."""
    compare_with_paper: bool
    """Whether verdicts are given. With false every verdict is `not comparable`."""
    replicates: Count
    """Trainings of every network, from as many seeds. Tables have means and standard deviations over them."""
    ablations: Ablations
    """The experiment with one choice changed at a time (results/ablations.csv)."""

    def check_network(self, name: str) -> None:
        """Check that a network fits its images.

        Only the networks that the targets need are checked.

        Args:
            name: The network's name.
        Raises:
            ConfigError: If its kernel and pool, or its number of classes, do not fit the images.
        """
        network = self.networks[name]
        if (
            isinstance(network, Convolutional)
            and min(self.data.image_shape) < network.kernel + network.pool - 1
        ):
            raise ConfigError(
                f"networks.{name}: its kernel and pool are larger than an image, {self.data.image_shape}"
            )
        classes = getattr(self, network.images).classes
        if network.classes != classes:
            raise ConfigError(
                f"networks.{name}: {network.classes} units in the last layer, for {classes} classes: "
                "write `classes` as the last of its units"
            )

    def attack_on(self, images: str) -> Attack:
        """Return the options of the attack on an image set.

        Args:
            images: The image set.
        Returns:
            The options.
        """
        return self._attacks[images]

    def attack_against(self, network: str, images: str) -> Attack:
        """Return the options of the attack on a network, which may have its own.

        Args:
            network: The network's name.
            images: The image set.
        Returns:
            The options.
        """
        return Attack.model_validate(self._attack_against(network, images))

    def size(self, images: str) -> int:
        """Return the largest number of images of a set that are distorted.

        Args:
            images: The image set.
        Returns:
            The number.
        """
        sample = self.attack_on(images).sample
        return self._whole(images) if sample == "all" else min(sample, self._whole(images))

    def shards(self, images: str) -> int:
        """Return the number of jobs that distort the images of a set.

        Args:
            images: The image set.
        Returns:
            The number.
        """
        return math.ceil(self.size(images) / self.attack_on(images).images_per_job)

    def replicated(self) -> dict[str, dict[str, Any]]:
        """Return the replicates without the experiment itself: the same with other seeds for all networks.

        Returns:
            The changes of the configuration, by the replicate's name.
        """
        seeds = {
            name: network.seed for name, network in self.networks.items() if isinstance(network, Trained)
        }
        return {
            f"seeds{k}": {"networks": {name: {"seed": seed + 1000 * (k - 1)} for name, seed in seeds.items()}}
            for k in range(2, max(map(self.trainings, self.tables.values())) + 1)
        }

    def trainings(self, table: Section) -> int:
        """Return the number of seeds that the networks of a table are trained from.

        Args:
            table: The table's section.
        Returns:
            The number.
        """
        return max(self.replicates, table.seeds if isinstance(table, MethodsTable) else 1)

    @cached_property
    def _attacks(self) -> dict[str, Attack]:
        return {
            "train": self.attack,
            "test": self.attack,
            PICTURES: Attack.model_validate(self._attack_on_pictures()),
        }

    def _attack_on_pictures(self) -> dict[str, Any]:
        return merged(self.attack.model_dump(), self.pictures.attack)

    def _attack_against(self, network: str, images: str) -> dict[str, Any]:
        return merged(self.attack_on(images).model_dump(), getattr(self.networks[network], "attack", {}))

    def _whole(self, images: str) -> float:
        pictures = math.inf if self.pictures.folder else len(self.pictures.files)
        if self.pictures.sample != "all":
            pictures = min(pictures, self.pictures.sample)
        return {"train": self.data.train_size, "test": self.data.test_size, PICTURES: pictures}[images]

    @model_validator(mode="after")
    def _the_target_is_a_class(self):
        if isinstance(self.attack.target, int) and self.attack.target >= self.data.classes:
            raise ValueError(
                f"attack.target: {self.attack.target} is no class of {self.data.classes} from 0 on"
            )
        return self

    @model_validator(mode="after")
    def _pictures_can_be_attacked(self):
        try:
            attack = self.attack_on(PICTURES)
        except ValidationError as error:
            lines = (error_line(problem, self._attack_on_pictures()) for problem in error.errors())
            raise ValueError("; ".join(f"pictures.attack.{line}" for line in lines)) from None
        if not math.isfinite(self.size(PICTURES)):
            raise ValueError(
                "pictures.attack.sample: give a number, as the folder may have any number of pictures"
            )
        if isinstance(attack.target, int) and attack.target >= self.pictures.classes:
            raise ValueError(
                f"pictures.attack.target: {attack.target} is no class of {self.pictures.classes} from 0 on"
            )
        return self

    @model_validator(mode="after")
    def _networks_can_be_attacked(self):
        for name, network in self.networks.items():
            if "norm" in getattr(network, "attack", {}).get("lbfgs", {}):
                raise ValueError(
                    f"networks.{name}.attack.lbfgs.norm: all networks of a table have the same one, "
                    "attack.lbfgs.norm"
                )
            try:
                self.attack_against(name, "test")
            except ValidationError as error:
                lines = (
                    error_line(problem, self._attack_against(name, "test")) for problem in error.errors()
                )
                raise ValueError("; ".join(f"networks.{name}.attack.{line}" for line in lines)) from None
        return self

    @model_validator(mode="after")
    def _compares_mnist_alone(self):
        if self.compare_with_paper and {role: file.sha256 for role, file in self.data.files} != MNIST:
            raise ValueError(
                "compare_with_paper: the paper's numbers are those of MNIST, and data.files are others: "
                "set it to false"
            )
        return self

    @model_validator(mode="after")
    def _splits_are_disjoint_ranges(self):
        for name in {"train", "test"} & set(self.splits.parts):
            raise ValueError(
                f"splits.parts.{name}: this name stands for all of the {name} images; choose another"
            )
        try:
            split(self.data.train_size, self.splits.parts, self.splits.seed)
        except ValueError as error:
            raise ValueError(f"splits.parts: {error}") from error
        return self

    @model_validator(mode="after")
    def _networks_are_trained_on_parts(self):
        for name, network in self.networks.items():
            if isinstance(network, Trained):
                check_known(f"networks.{name}.trained_on", network.trained_on, [*self.splits.parts, "train"])
        return self

    @model_validator(mode="after")
    def _tables_can_be_made(self):
        for name, table in self.tables.items():
            key = f"tables.{name}"
            check_unique(f"{key}.networks", table.networks)
            if isinstance(table, TransferTable):
                check_unique(f"{key}.blocks", [row.name for row in table.rows()])
            elif isinstance(table, BaselineTable | MethodsTable):
                check_unique(f"{key}.errors_on", table.errors_on)
            for network in table.networks:
                self._classifies(f"{key}.networks", network, table.image_set)
            for split_name in getattr(table, "errors_on", ()):
                check_known(f"{key}.errors_on", split_name, [*self.splits.parts, "train", "test"])
            if isinstance(table, MethodsTable):
                self._record_test_errors(f"{key}.networks", table.networks)
            else:
                self._has_images_enough(table.image_set)
        return self

    @model_validator(mode="after")
    def _units_can_be_inspected(self):
        for name, section in self.units.of.items():
            self._classifies(f"units.of.{name}.network", section.network, section.images)
        return self

    @model_validator(mode="after")
    def _results_have_names_of_their_own(self):
        for name in _OTHER_RESULTS & set(self.tables):
            raise ValueError(f"tables.{name}: this name stands for another of the results; choose another")
        figures = [name for section in self.units.of.values() for name in section.figures]
        check_unique("units.of: the figures", [*self.tables, *figures])
        return self

    @model_validator(mode="after")
    def _ablations_are_of_tables(self):
        if REFERENCE in self.ablations.choices:
            raise ValueError(
                f"ablations.choices.{REFERENCE}: this name stands for the experiment as it is; choose another"
            )
        for table in self.ablations.tables:
            check_known("ablations.tables", table, self.tables)
        return self

    def _has_images_enough(self, image_set: str) -> None:
        sample = self.attack.sample
        if image_set != PICTURES and sample != "all" and sample > self._whole(image_set):
            raise ValueError(
                f"attack.sample: {sample} images, but the {image_set} set has {self._whole(image_set)}"
            )

    def _record_test_errors(self, key: str, networks: Sequence[str]) -> None:
        """Check that all networks have epochs. The figure draws the test error after each epoch."""
        for network in networks:
            if not self.networks[network].in_minibatches:
                raise ValueError(
                    f"{key}: {network} is not trained by epochs: give it minibatches, or leave it out"
                )

    def _classifies(self, key: str, network: str, images: str) -> None:
        check_known(key, network, self.networks)
        if (self.networks[network].images == PICTURES) != (images == PICTURES):
            raise ValueError(
                f"{key}: {network} classifies no images of the {images} set, "
                f"but those of {self.networks[network].images}"
            )
