"""Photographs as the networks that come trained on ImageNet want them: squares out of the middle, with their classes.

What torchvision is needed for imports it, because that takes seconds.
"""

import io
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

KINDS = (
    ".avif",
    ".bmp",
    ".gif",
    ".jfif",
    ".jp2",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".pgm",
    ".png",
    ".pnm",
    ".ppm",
    ".tga",
    ".tif",
)
KINDS += (".tiff", ".webp")
_OF_8_BITS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
_PHOTOMETRIC = 262  # the tag of a TIFF file that says which of black and white is 0
_OF_16_BITS = {"I;16", "I;16L", "I;16B", "I;16N"}


def prepare(content: bytes, resize: int, size: int) -> np.ndarray:
    """The middle of a picture file whose shorter side is first resized: (3, size, size) bytes, red, green and blue.

    The picture is upright, as its EXIF orientation says. What is transparent has its colours, and of several pictures the
    first one is taken. Raises ValueError if the content is no picture, or none that can be told in 8 bits.
    """
    from torchvision.transforms import functional

    try:
        with Image.open(io.BytesIO(content)) as file:
            negative = getattr(file, "tag_v2", {}).get(_PHOTOMETRIC) == 0
            upright = _in_8_bits(ImageOps.exif_transpose(file), negative)
            picture = functional.center_crop(functional.resize(upright, resize), size)
    except (OSError, SyntaxError) as error:  # Pillow says so of a damaged PNG
        raise ValueError(f"it is no picture, or damaged: {error}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"it has too many pixels: {error} Save it smaller, or leave it out") from error
    return np.asarray(picture).transpose(2, 0, 1)


def _in_8_bits(picture: Image.Image, negative: bool) -> Image.Image:
    """A picture as red, green and blue, 0 to 255. Raises ValueError where it is not known what its numbers stand for.

    negative: whether 0 is white in the file, which Pillow itself heeds with 8 bits alone.
    """
    if picture.mode in _OF_16_BITS:  # Pillow itself would cut them off at 255
        values = np.round(np.asarray(picture) / 257).astype(np.uint8)
        picture = Image.fromarray(255 - values if negative else values)
    if picture.mode not in _OF_8_BITS:
        raise ValueError(
            f"its pixels are of Pillow's mode {picture.mode}, whose white is not known: save it as 8-bit RGB"
        )
    return picture.convert("RGB")


def class_names() -> list[str]:
    """The names of ImageNet's 1,000 classes, in their order."""
    from torchvision.models import AlexNet_Weights

    return AlexNet_Weights.IMAGENET1K_V1.meta["categories"]


def classes(names: Sequence[str], pattern: str, count: int) -> list[int]:
    """The class of each file, by what the pattern's group matches in its name.

    A number is the class itself; other words, such as WordNet's ids, stand for their place among all that there are, which
    then have to be `count`. Raises ValueError for a name that tells no class.
    """
    found = [re.search(pattern, name) for name in names]
    words = [match and match[1] for match in found]
    if None in words:  # also of a group that may be left out
        raise ValueError(
            f"{names[words.index(None)]} does not tell its class: nothing in it matches the group of {pattern}"
        )
    if all(word.isdecimal() for word in words):
        numbers = list(map(int, words))
        if max(numbers) >= count:
            raise ValueError(
                f"{names[np.argmax(numbers)]} is of class {max(numbers)}, of {count} classes from 0 on"
            )
        return numbers
    order = {word: place for place, word in enumerate(sorted(set(words)))}
    if len(order) != count:
        raise ValueError(
            f"{pattern} finds {len(order)} classes in the names, which have to be {count}: {names[0]}, …"
        )
    return [order[word] for word in words]
