"""Division of a batch of images into parts, each of which is processed by one thread."""

from torch import Tensor

# The number of parts is this number or a multiple of it, so that this number of threads can share the work.
_PARTS = 8
# The least number of images in a part. Where parts would be smaller, there are fewer of them.
_SMALLEST = 100
# The largest number of images in a part. On a CPU a part of this size stays in the cache.
_LARGEST = {"cpu": 1500, "cuda": 10_000}


def in_chunks(values: Tensor) -> tuple[Tensor, ...]:
    """Divide a batch into parts, each of which is processed by one thread.

    The division depends only on b and on the kind of device.
    Sums over the parts are made in the order of the parts.
    Such sums are therefore the same for any number of threads.

    Args:
        values: The batch, (b, ...), on a CPU or a CUDA GPU. It has at least one row.
    Returns:
        Views of consecutive rows. All have the same number of rows, except that the last may have fewer.
    """
    largest = _LARGEST[values.device.type]
    parts = _PARTS * -(-len(values) // (_PARTS * largest))
    return values.split(min(largest, max(_SMALLEST, -(-len(values) // parts))))
