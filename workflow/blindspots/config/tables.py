"""The sections `tables` and `units` of the configuration.

Each kind of table is a class that knows what its rule reads. It has the keys of the configuration, and these
members:

- `image_set`: the set whose images are distorted. If none are distorted, it is the set whose images are
  classified.
- `inputs(paths, variant, name)`: the files that its rule reads, by their role, for a variant of the table
  `name`.
- `shards(paths, variant)`: the shards with the images of its rows, by row or artifact.
"""

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from blindspots.config.errors import check_known, check_unique
from blindspots.config.types import Count, ImageSet, Name, NonNegative, Positive, Section, Seed

if TYPE_CHECKING:
    from blindspots.config.artifact_paths import ArtifactPaths


class TableSection(Section):
    """What every kind of table has: its networks, and what its rule reads."""

    networks: Annotated[list[str], Field(min_length=1)]
    """The networks, in the table's order."""

    @property
    def image_set(self) -> str:
        """The set whose images are distorted. If none are distorted, it is the set that is classified."""
        raise NotImplementedError

    def inputs(self, paths: "ArtifactPaths", variant: str, name: str) -> dict[str, list[str]]:
        """Return the files that the table's rule reads.

        Args:
            paths: The paths of all artifacts.
            variant: The folder of the variant.
            name: The table's name.
        Returns:
            The files by role.
        """
        raise NotImplementedError

    def shards(self, paths: "ArtifactPaths", variant: str) -> dict[str, list[str]]:
        """Return the shards with the distorted images that the table counts, or none.

        Args:
            paths: The paths of all artifacts.
            variant: The folder of the variant.
        Returns:
            The shards, by row or by the artifact that is gathered from them.
        """
        return {}


class DistortedTable(TableSection):
    """A table about distorted images."""

    distorted: ImageSet
    """The set whose images are distorted."""

    @property
    def image_set(self) -> str:
        return self.distorted


class BaselineTable(DistortedTable):
    """Errors on undistorted images, and the average minimum distortion (the paper's Tables 1 and 3)."""

    kind: Literal["baseline"]
    """Errors on undistorted images, and the average minimum distortion."""
    errors_on: Annotated[list[str], Field(min_length=1)]
    """Parts of `splits.parts`, train or test, on which errors are measured."""
    distorted: Literal["train", "test"]
    """The set whose images are distorted."""

    def _examples(self, paths: "ArtifactPaths") -> dict[str, list[str]]:
        """The networks that each kind of examples is made for."""
        linear = paths.linear(self.networks)
        return {"adversarial": self.networks, "refined": self.networks, "exact": linear}

    def inputs(self, paths: "ArtifactPaths", variant: str, name: str) -> dict[str, list[str]]:
        replicates = paths.replicates(variant, self)
        return {
            "originals": [paths.evaluation(replicate, name) for replicate in replicates],
            **{
                kind: [
                    paths.examples(kind, self.image_set, replicate, one)
                    for replicate in replicates
                    for one in networks
                ]
                for kind, networks in self._examples(paths).items()
            },
            "networks": [paths.network(replicate, one) for replicate in replicates for one in self.networks],
        }

    def shards(self, paths: "ArtifactPaths", variant: str) -> dict[str, list[str]]:
        artifacts = [
            paths.examples(kind, self.image_set, variant, one)
            for kind, names in self._examples(paths).items()
            for one in names
        ]
        return {artifact: paths.shards(artifact, variant, self.image_set) for artifact in artifacts}


class Block(Section):
    """Rows of a transfer table: each network's examples, as they are or amplified, and then noise."""

    amplified_to: Positive | None
    """The standard deviation that the examples are amplified to; null leaves them as they are."""
    noise: list[NonNegative]
    """The standard deviations of the rows with Gaussian noise."""


class Row(NamedTuple):
    """A row of a transfer table, with adversarial examples or with noise.

    Attributes:
        name: The row's name.
        network: The network that the images are distorted for; None for noise.
        stddev: The standard deviation of the noise, or that of the amplified examples. None for examples that
            are not amplified.
    """

    name: str
    network: str | None
    stddev: float | None


class TransferTable(DistortedTable):
    """The error of each network on the images distorted for each (the paper's Tables 2 and 4)."""

    kind: Literal["transfer"]
    """The error of each network on the images distorted for each."""
    examples: Literal["adversarial", "refined"]
    """adversarial: by the paper's procedure. refined: local minima of the distortion."""
    average_distortion: bool
    """Whether the last column is the average distortion."""
    blocks: Annotated[list[Block], Field(min_length=1)]
    """Groups of rows: the images distorted for each network, then noise."""

    def rows(self) -> list[Row]:
        """Return the rows in the table's order.

        Returns:
            The rows.
        """
        rows = []
        for block in self.blocks:
            suffix = "" if block.amplified_to is None else "_amplified"
            rows += [Row(f"{network}{suffix}", network, block.amplified_to) for network in self.networks]
            rows += [Row(f"noise_{stddev}", None, stddev) for stddev in block.noise]
        return rows

    def measured_rows(self) -> list[Row]:
        """Return the rows whose average distortion is in the table.

        Returns:
            The rows.
        """
        return [row for row in self.rows() if self.average_distortion or (row.network and row.stddev is None)]

    def pictured_rows(self) -> list[Row]:
        """Return the rows of the table's figure.

        Returns:
            The rows that are not amplified, and the last one with noise.
        """
        noise = [row for row in self.rows() if row.network is None]
        return [row for row in self.rows() if row.network and row.stddev is None] + noise[-1:]

    def inputs(self, paths: "ArtifactPaths", variant: str, name: str) -> dict[str, list[str]]:
        replicates = paths.replicates(variant, self)
        return {
            "evaluation": [paths.evaluation(replicate, name) for replicate in replicates],
            "distorted": [
                paths.row(self, replicate, row) for replicate in replicates for row in self.measured_rows()
            ],
            "refined": [
                paths.examples("refined", self.image_set, replicate, one)
                for replicate in replicates
                for one in self.networks
            ],
        }

    def shards(self, paths: "ArtifactPaths", variant: str) -> dict[str, list[str]]:
        return {
            row.name: paths.shards(paths.row(self, variant, row), variant, self.image_set)
            for row in self.rows()
        }


class SpectralTable(DistortedTable):
    """The frame bounds of every linear map, and the instability of examples (the paper's Table 5)."""

    kind: Literal["spectral"]
    """The frame bounds of every linear map."""
    examples: Literal["adversarial", "refined"]
    """The examples whose instability stands beside the bounds."""

    def inputs(self, paths: "ArtifactPaths", variant: str, name: str) -> dict[str, list[str]]:
        return {"spectra": [paths.spectra(self, variant, network) for network in self.networks]}


class MethodsTable(TableSection):
    """The errors of networks trained in different ways, each from several seeds, compared with baselines."""

    kind: Literal["methods"]
    """The errors of networks that are trained in different ways."""
    errors_on: Annotated[list[str], Field(min_length=1)]
    """Parts of `splits.parts`, train or test, on which errors are measured."""
    seeds: Count
    """Trainings of each network, from as many seeds."""
    baselines: list[str]
    """The networks that the others are compared with."""

    @property
    def image_set(self) -> str:
        return "test"

    def inputs(self, paths: "ArtifactPaths", variant: str, name: str) -> dict[str, list[str]]:
        replicates = paths.replicates(variant, self)
        return {
            "originals": [paths.evaluation(replicate, name) for replicate in replicates],
            "networks": [paths.network(replicate, one) for replicate in replicates for one in self.networks],
        }

    @model_validator(mode="after")
    def _baselines_are_of_the_table(self):
        check_unique("baselines", self.baselines)
        for name in self.baselines:
            check_known("baselines", name, self.networks)
        return self


Table = BaselineTable | TransferTable | SpectralTable | MethodsTable


class UnitsOf(Section):
    """An inspection of a layer's units: the layer, the images, and the names of the figures."""

    network: str
    """The network whose units are inspected."""
    layer: str
    """last_hidden, or a module's name such as '4'."""
    images: ImageSet
    """The set whose images are searched."""
    top: Annotated[Count, Field(ge=2)]
    """Images of a unit."""
    figures: tuple[Name, Name]
    """The names of the figures of units and of random directions."""


class Units(Section):
    """The images that have most of a unit or of a random direction (the paper's Figures 1 to 4)."""

    shown: Count
    """Units in a figure."""
    seed: Seed
    """The seed of the random directions."""
    of: dict[Name, UnitsOf]
    """Each inspection by name."""
