"""Where artifacts lie.

A variant is the experiment with something changed: other seeds (`replicates`) or one other choice (`ablations`). Its
artifacts lie in folders of its name. But where nothing that they depend on is changed, they are those of an earlier variant.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from blindspots.config.networks import Network, Trained
from blindspots.config.schema import Config
from blindspots.config.tables import Row, SpectralTable, Table, TransferTable
from blindspots.config.types import PICTURES

_OF_LBFGS = {"method", "gradient_tolerance", "max_iterations", "history"}  # keys of `training`


def training_keys(network: Trained) -> set[str]:
    """The keys of `training` that a network's weights depend on. Those of L-BFGS change nothing in minibatches."""
    return {"decay_convention", "device"} | (set() if network.in_minibatches else _OF_LBFGS)


def weights_dependencies(config: Config, network: str) -> list[Any]:
    """What the weights of a network depend on."""
    definition = config.networks[network]
    if not isinstance(definition, Trained):
        return [definition]
    of_training = config.training.model_dump(include=training_keys(definition))
    return [definition.definition(), definition.training(), config.data, config.splits, of_training]


def image_dependencies(config: Config, image_set: str) -> list[Any]:
    """What a set of images, and which of them are distorted, depends on."""
    return [config.pictures if image_set == PICTURES else config.data, config.attack_on(image_set)]


def example_dependencies(config: Config, network: str, image_set: str) -> list[Any]:
    """What the examples for a network depend on."""
    return [
        *weights_dependencies(config, network),
        *image_dependencies(config, image_set),
        config.attack_against(network, image_set),
    ]


class ArtifactPaths:
    """The paths of all artifacts, relative to the run's folder.

    Args:
        variants: The configurations by the folder of their artifacts, such as `seeds2/`. The experiment itself comes first;
            its folder is the empty text.
    """

    def __init__(self, variants: Mapping[str, Config]):
        self.variants = variants

    def variant_folder(self, variant: str, dependencies: Callable[[Config], list[Any]]) -> str:
        """The folder of the first variant for which all dependencies are the same."""
        wanted = dependencies(self.variants[variant])
        return next(folder for folder, config in self.variants.items() if dependencies(config) == wanted)

    def data(self, image_set: str) -> str:
        return "results/pictures.h5" if image_set == PICTURES else "results/data.h5"

    def network(self, variant: str, network: str) -> str:
        folder = self.variant_folder(variant, lambda config: weights_dependencies(config, network))
        return f"results/networks/{folder}{network}.h5"

    def examples(self, kind: str, image_set: str, variant: str, network: str) -> str:
        """The examples for a network without their images, gathered from the shards. kind: adversarial, refined or exact."""
        folder = self.variant_folder(variant, lambda config: example_dependencies(config, network, image_set))
        return f"results/{kind}/{image_set}/{folder}{network}.h5"

    def amplified(self, kind: str, image_set: str, variant: str, network: str, stddev: float) -> str:
        def dependencies(config: Config) -> list[Any]:
            return [*example_dependencies(config, network, image_set), config.amplification]

        return f"results/amplified/{kind}/{image_set}/{self.variant_folder(variant, dependencies)}{network}_{stddev}.h5"

    def noise(self, image_set: str, variant: str, stddev: float) -> str:
        folder = self.variant_folder(
            variant, lambda config: [*image_dependencies(config, image_set), config.noise]
        )
        return f"results/noise/{image_set}/{folder}{stddev}.h5"

    def row(self, table: TransferTable, variant: str, row: Row) -> str:
        """The distorted images of a transfer table's row, gathered without the images."""
        if row.network is None:
            return self.noise(table.image_set, variant, row.stddev)
        if row.stddev is None:
            return self.examples(table.examples, table.image_set, variant, row.network)
        return self.amplified(table.examples, table.image_set, variant, row.network, row.stddev)

    def spectra(self, table: SpectralTable, variant: str, network: str) -> str:
        return self.examples(table.examples, table.image_set, variant, network).replace(
            "results/", "results/spectra/", 1
        )

    def evaluation(self, variant: str, table: str) -> str:
        return f"results/evaluation/{variant}{table}.h5"

    def shards(self, artifact: str, variant: str, image_set: str) -> list[str]:
        """The shards with the images of a gathered artifact."""
        count = self.variants[variant].shards(image_set)
        return [f"{artifact.removesuffix('.h5')}/{number}-of-{count}.h5" for number in range(1, count + 1)]

    def replicates(self, variant: str, table: Table) -> list[str]:
        """The variants over which a variant's table is taken: for the experiment itself all of its seeds, if it trains."""
        config = self.variants[variant]
        if variant or not any(isinstance(config.networks[name], Trained) for name in table.networks):
            return [variant]
        return [variant, *(f"{name}/" for name in [*config.replicated()][: config.trainings(table) - 1])]

    def linear(self, networks: Iterable[str]) -> list[str]:
        """Those of the networks that are linear classifiers."""
        definitions: Mapping[str, Network] = self.variants[""].networks
        return [name for name in networks if definitions[name].linear]
