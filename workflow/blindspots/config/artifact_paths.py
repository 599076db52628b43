"""The paths of all artifacts.

A variant is the experiment with a change. This is other seeds (`replicates`) or one other choice
(`ablations`). Each variant has its own folders for artifacts. If no dependency of an artifact changes, the
variant uses the artifact of an earlier variant.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from blindspots.config.networks import Network, Trained
from blindspots.config.schema import Config
from blindspots.config.tables import Row, SpectralTable, Table, TransferTable
from blindspots.config.types import PICTURES

_OF_LBFGS = {"method", "gradient_tolerance", "max_iterations", "history"}  # the keys of `training` for L-BFGS


def training_keys(network: Trained) -> set[str]:
    """Return the keys of `training` that a network's weights depend on.

    The keys for L-BFGS have no effect on training in minibatches.

    Args:
        network: The network's section.
    Returns:
        The keys.
    """
    return {"decay_convention", "device"} | (set() if network.in_minibatches else _OF_LBFGS)


def weights_dependencies(config: Config, network: str) -> list[Any]:
    """Return all parts of the configuration that a network's weights depend on.

    Args:
        config: The configuration.
        network: The network's name.
    Returns:
        The parts, to be compared with those of another configuration.
    """
    definition = config.networks[network]
    if not isinstance(definition, Trained):
        return [definition]
    of_training = config.training.model_dump(include=training_keys(definition))
    return [definition.definition(), definition.training(), config.data, config.splits, of_training]


def image_dependencies(config: Config, image_set: str) -> list[Any]:
    """Return all parts that an image set, and the choice of its distorted images, depend on.

    Args:
        config: The configuration.
        image_set: The image set.
    Returns:
        The parts, to be compared with those of another configuration.
    """
    return [config.pictures if image_set == PICTURES else config.data, config.attack_on(image_set)]


def example_dependencies(config: Config, network: str, image_set: str) -> list[Any]:
    """Return all parts that the examples for a network depend on.

    Args:
        config: The configuration.
        network: The network's name.
        image_set: The image set.
    Returns:
        The parts, to be compared with those of another configuration.
    """
    return [
        *weights_dependencies(config, network),
        *image_dependencies(config, image_set),
        config.attack_against(network, image_set),
    ]


class ArtifactPaths:
    """The paths of all artifacts, relative to the run's folder.

    Attributes:
        variants: The configurations, by the folder of their artifacts.
    """

    def __init__(self, variants: Mapping[str, Config]):
        """Store the variants.

        Args:
            variants: The configurations by the folder of their artifacts, such as `seeds2/`. The experiment
                itself comes first. Its folder is the empty string.
        """
        self.variants = variants

    def variant_folder(self, variant: str, dependencies: Callable[[Config], list[Any]]) -> str:
        """Return the folder of the first variant with the same dependencies.

        Args:
            variant: The folder of the variant that is asked for.
            dependencies: Returns the parts of a configuration that an artifact depends on.
        Returns:
            The folder, which may be that of an earlier variant.
        """
        wanted = dependencies(self.variants[variant])
        return next(folder for folder, config in self.variants.items() if dependencies(config) == wanted)

    def data(self, image_set: str) -> str:
        """Return the path of an image set.

        Args:
            image_set: The image set.
        Returns:
            The path.
        """
        return "results/pictures.h5" if image_set == PICTURES else "results/data.h5"

    def network(self, variant: str, network: str) -> str:
        """Return the path of a network.

        Args:
            variant: The folder of the variant.
            network: The network's name.
        Returns:
            The path.
        """
        folder = self.variant_folder(variant, lambda config: weights_dependencies(config, network))
        return f"results/networks/{folder}{network}.h5"

    def examples(self, kind: str, image_set: str, variant: str, network: str) -> str:
        """Return the path of the examples for a network, gathered from the shards without their images.

        Args:
            kind: adversarial, refined or exact.
            image_set: The image set.
            variant: The folder of the variant.
            network: The network's name.
        Returns:
            The path.
        """
        folder = self.variant_folder(variant, lambda config: example_dependencies(config, network, image_set))
        return f"results/{kind}/{image_set}/{folder}{network}.h5"

    def amplified(self, kind: str, image_set: str, variant: str, network: str, stddev: float) -> str:
        """Return the path of the amplified examples for a network.

        Args:
            kind: adversarial or refined.
            image_set: The image set.
            variant: The folder of the variant.
            network: The network's name.
            stddev: The standard deviation after the amplification.
        Returns:
            The path.
        """

        def dependencies(config: Config) -> list[Any]:
            return [*example_dependencies(config, network, image_set), config.amplification]

        return (
            f"results/amplified/{kind}/{image_set}/"
            f"{self.variant_folder(variant, dependencies)}{network}_{stddev}.h5"
        )

    def noise(self, image_set: str, variant: str, stddev: float) -> str:
        """Return the path of the images with Gaussian noise.

        Args:
            image_set: The image set.
            variant: The folder of the variant.
            stddev: The standard deviation of the noise.
        Returns:
            The path.
        """
        folder = self.variant_folder(
            variant, lambda config: [*image_dependencies(config, image_set), config.noise]
        )
        return f"results/noise/{image_set}/{folder}{stddev}.h5"

    def row(self, table: TransferTable, variant: str, row: Row) -> str:
        """Return the path of the distorted images of a transfer table's row, gathered without the images.

        Args:
            table: The table.
            variant: The folder of the variant.
            row: The row.
        Returns:
            The path.
        """
        if row.network is None:
            return self.noise(table.image_set, variant, row.stddev)
        if row.stddev is None:
            return self.examples(table.examples, table.image_set, variant, row.network)
        return self.amplified(table.examples, table.image_set, variant, row.network, row.stddev)

    def spectra(self, table: SpectralTable, variant: str, network: str) -> str:
        """Return the path of a network's frame bounds and instabilities.

        Args:
            table: The table.
            variant: The folder of the variant.
            network: The network's name.
        Returns:
            The path.
        """
        return self.examples(table.examples, table.image_set, variant, network).replace(
            "results/", "results/spectra/", 1
        )

    def evaluation(self, variant: str, table: str) -> str:
        """Return the path of a table's misclassifications.

        Args:
            variant: The folder of the variant.
            table: The table's name.
        Returns:
            The path.
        """
        return f"results/evaluation/{variant}{table}.h5"

    def shards(self, artifact: str, variant: str, image_set: str) -> list[str]:
        """Return the paths of the shards with the images of a gathered artifact.

        Args:
            artifact: The path of the gathered artifact.
            variant: The folder of the variant.
            image_set: The image set.
        Returns:
            The paths, in order.
        """
        count = self.variants[variant].shards(image_set)
        return [f"{artifact.removesuffix('.h5')}/{number}-of-{count}.h5" for number in range(1, count + 1)]

    def replicates(self, variant: str, table: Table) -> list[str]:
        """Return the variants that are the replicates of a table.

        Args:
            variant: The folder of the variant whose table it is.
            table: The table.
        Returns:
            The folders. They are all seeds if the variant is the experiment itself and the table has a
            trained network; otherwise the variant alone.
        """
        config = self.variants[variant]
        if variant or not any(isinstance(config.networks[name], Trained) for name in table.networks):
            return [variant]
        return [variant, *(f"{name}/" for name in [*config.replicated()][: config.trainings(table) - 1])]

    def linear(self, networks: Iterable[str]) -> list[str]:
        """Select the networks that are linear classifiers.

        Args:
            networks: The names of networks.
        Returns:
            Those of the linear ones.
        """
        definitions: Mapping[str, Network] = self.variants[""].networks
        return [name for name in networks if definitions[name].linear]
