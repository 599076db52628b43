"""Photographs in the form that networks trained on ImageNet need: central squares, with their classes.

Functions that need torchvision import it themselves, because the import takes seconds.
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
_PHOTOMETRIC = 262  # the tag of a TIFF file that tells whether 0 is black or white
_OF_16_BITS = {"I;16", "I;16L", "I;16B", "I;16N"}


def prepare(content: bytes, resize: int, size: int) -> np.ndarray:
    """Crop the central square of a picture whose shorter side is first resized.

    The picture is turned upright according to its EXIF orientation.
    Transparency is ignored: transparent pixels keep their colours.
    From a file with several pictures, the first one is used.

    Args:
        content: The content of the picture file.
        resize: The length of the shorter side after resizing, in pixels.
        size: The side of the square, in pixels.
    Returns:
        The red, green and blue values, (3, size, size) uint8.
    Raises:
        ValueError: If the content is no picture, or if it cannot be converted to 8 bits.
            Also if it has too many pixels.
    """
    from torchvision.transforms import functional

    try:
        with Image.open(io.BytesIO(content)) as file:
            negative = getattr(file, "tag_v2", {}).get(_PHOTOMETRIC) == 0
            upright = _in_8_bits(ImageOps.exif_transpose(file), negative)
            picture = functional.center_crop(functional.resize(upright, resize), size)
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a damaged PNG
        raise ValueError(f"it is no picture, or damaged: {error}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"it has too many pixels: {error} Save it smaller, or leave it out") from error
    return np.asarray(picture).transpose(2, 0, 1)


def _in_8_bits(picture: Image.Image, negative: bool) -> Image.Image:
    """Convert a picture to red, green and blue, from 0 to 255.

    Args:
        picture: The picture.
        negative: Whether 0 is white in the file. Pillow itself considers this only with 8 bits.
    Raises:
        ValueError: If the meaning of the picture's values is not known.
    """
    if picture.mode in _OF_16_BITS:  # Pillow itself would clip the values at 255
        values = np.round(np.asarray(picture) / 257).astype(np.uint8)
        picture = Image.fromarray(255 - values if negative else values)
    if picture.mode not in _OF_8_BITS:
        raise ValueError(
            f"its pixels are of Pillow's mode {picture.mode}, whose white is not known: save it as 8-bit RGB"
        )
    return picture.convert("RGB")


def class_names() -> list[str]:
    """Return the names of ImageNet's 1,000 classes, in their order."""
    from torchvision.models import AlexNet_Weights

    return AlexNet_Weights.IMAGENET1K_V1.meta["categories"]


def classes(names: Sequence[str], pattern: str, count: int) -> list[int]:
    """Find the class of each file from its name.

    If every match is a number, the number is the class itself.
    Other words, such as WordNet's ids, are sorted, and the class is the position of the word.
    There must then be `count` different words.

    Args:
        names: The names of the files.
        pattern: A regular expression, whose first group matches the class.
        count: The number of classes.
    Returns:
        The class of each file.
    Raises:
        ValueError: If a name does not give a class, if a class is out of range,
            or if the number of different words is not `count`.
    """
    found = [re.search(pattern, name) for name in names]
    words = [match and match[1] for match in found]
    if None in words:  # an optional group may also match nothing
        raise ValueError(
            f"{names[words.index(None)]} does not tell its class: "
            f"nothing in it matches the group of {pattern}"
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
