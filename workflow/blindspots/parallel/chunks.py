"""Pieces of many images that are each the work of one thread."""

from torch import Tensor

_PARTS = 8  # at least, or a multiple of it, for as many threads,
_SMALLEST = 100  # unless they got smaller than this.
_LARGEST = {"cpu": 1500, "cuda": 10_000}  # On a CPU such a part stays in the cache.


def in_chunks(values: Tensor) -> tuple[Tensor, ...]:
    """Equal parts of (b, ...) values but for the last, each of which is the work of one thread.

    They depend on b and the kind of device alone, and sums over them are made in their order: so these are the same for any
    number of threads.
    """
    largest = _LARGEST[values.device.type]
    parts = _PARTS * -(-len(values) // (_PARTS * largest))
    return values.split(min(largest, max(_SMALLEST, -(-len(values) // parts))))
