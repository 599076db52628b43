"""The sections `data`, `pictures` and `splits` of the configuration."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from blindspots.config.types import SHA256, Count, Name, Section, Seed

# The paper's numbers are for MNIST. These are the SHA-256 of its uncompressed files.
MNIST = {
    "train_images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train_labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "test_images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "test_labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


class File(Section):
    """A file of a data set or of a network's weights."""

    name: str
    """The file's name at its sources, without .gz."""
    sha256: SHA256
    """The SHA-256 of its uncompressed content. No other content is ever used."""


class Files(Section):
    """The four IDX files of a data set."""

    train_images: File
    """The IDX file of the training images."""
    train_labels: File
    """The IDX file of their classes."""
    test_images: File
    """The IDX file of the test images."""
    test_labels: File
    """The IDX file of their classes."""

    @model_validator(mode="after")
    def _four_files(self):
        names = [file.name for _, file in self]
        if len(set(names)) < len(names):
            raise ValueError(f"one name stands for two files: {', '.join(names)}")
        return self


class Folder(Section):
    """A local folder as the source of files."""

    kind: Literal["folder"]
    """A folder on this machine, with plain or gzipped files."""
    path: str | None = None
    """The folder. A relative path starts at the run's folder."""
    variable: str | None = None
    """An environment variable that has the folder, if `path` is null."""

    @model_validator(mode="after")
    def _names_a_place(self):
        if not (self.path or self.variable):
            raise ValueError("give a path, or the environment variable that has it")
        return self


class Mirror(Section):
    """A web server as the source of files."""

    kind: Literal["mirror"]
    """A web server with one file a URL."""
    url: Annotated[str, Field(pattern=r"^(https?|file)://")]
    """The URL before the file's name."""
    suffix: Annotated[str, Field(pattern=r"^(\.gz)?$")]
    """What stands behind the file's name: .gz where files are gzipped, or nothing."""


class Npm(Section):
    """A package of the npm registry as the source of files."""

    kind: Literal["npm"]
    """A package of the npm registry. It is unpacked, never run."""
    package: str
    """The package's name."""
    version: str
    """The package's exact version."""
    folder: str
    """The folder of the files in the package."""


class PyPI(Section):
    """A package of PyPI as the source of files."""

    kind: Literal["pypi"]
    """A package of PyPI. It is unpacked, never installed or run."""
    package: str
    """The package's name."""
    version: str
    """The package's exact version."""
    folder: str
    """The folder of the files in the package."""


Sources = Annotated[
    list[Annotated[Folder | Mirror | Npm | PyPI, Field(discriminator="kind")]], Field(min_length=1)
]


class Data(Section):
    """The data set."""

    classes: Annotated[Count, Field(ge=2)]
    """How many classes there are, counted from 0."""
    image_shape: tuple[Count, Count]
    """Height and width of an image in pixels."""
    train_size: Count
    """How many training images there are."""
    test_size: Count
    """How many test images there are."""
    files: Files
    """The four IDX files."""
    sources: Sources
    """Where files may come from, tried in this order if the user's cache lacks one."""


class Pictures(Section):
    """Photographs, from given files or your own folder, and the differences of their attack."""

    classes: Annotated[Count, Field(ge=2)]
    """How many classes the networks for photographs know."""
    resize: Count
    """Pixels of the shorter side after resizing."""
    size: Count
    """Pixels of the square that is then cut out of the middle."""
    folder: str | None
    """A folder of your own photographs. With null, `files` are used."""
    label: str
    """A regular expression. Its one group extracts the class from a file's path: a number, or a word, whose \
place among all
    words in order is the class."""
    sample: Count | Literal["all"]
    """How many photographs are drawn at random, or all."""
    seed: Seed
    """The seed of this draw."""
    files: dict[str, SHA256]
    """Photographs by name, with the SHA-256 of each."""
    sources: Sources
    """Where these files may come from, tried in this order."""
    attack: dict[str, Any]
    """The keys of `attack` that differ for photographs."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of a photograph: 3 colours, height and width in pixels."""
        return 3, self.size, self.size

    @model_validator(mode="after")
    def _consistent(self):
        try:
            groups = re.compile(self.label).groups
        except re.error as error:
            raise ValueError(f"label: {self.label} is no regular expression: {error}") from error
        if groups != 1:
            raise ValueError(
                f"label: {self.label} has {groups} groups: give it one, which is what tells the class"
            )
        if self.size > self.resize:
            raise ValueError(
                f"size: {self.size} pixels cannot be cut out of {self.resize}: make resize as large at least"
            )
        if not (self.folder or self.files):
            raise ValueError("give files, or a folder")
        return self


class Splits(Section):
    """Disjoint parts of the training images."""

    seed: Seed
    """The seed of the permutation of the training images."""
    parts: dict[Name, tuple[int, int]]
    """Each part's name with its range, [from, to), in the permutation. Ranges do not overlap."""
