"""Short notation for many shards, so that a command does not grow with their number.

The operating system limits the length of a command. `folder/*-of-60.h5` stands for `folder/1-of-60.h5` to
`folder/60-of-60.h5`, whether these files are there or not.
"""

import re
from collections.abc import Iterable, Iterator

_SHARD = re.compile(r"(?P<folder>.*/)?(?P<number>\*|\d+)-of-(?P<count>\d+)\.h5")


def collapsed(paths: Iterable[str]) -> list[str]:
    """Replace all shards of a folder by one word.

    Only a sequence from the first shard to the last, in order and without a gap, is replaced.

    Args:
        paths: The paths.
    Returns:
        The words, in the same order. A path that is not replaced is its own word.
    """
    paths = [str(path) for path in paths]
    words, start = [], 0
    while start < len(paths):
        word, count = _of_all(paths[start])
        if count > 1 and paths[start : start + count] == list(expanded([word])):
            words.append(word)
            start += count
        else:
            words.append(paths[start])
            start += 1
    return words


def expanded(words: Iterable[str]) -> Iterator[str]:
    """Replace the words of `collapsed` by the paths that they stand for.

    Args:
        words: The words.
    Yields:
        The paths, in the same order. Any other path stands for itself.
    """
    for word in words:
        shard = _SHARD.fullmatch(word)
        if shard and shard["number"] == "*":
            count = shard["count"]
            yield from (
                f"{shard['folder'] or ''}{number}-of-{count}.h5" for number in range(1, int(count) + 1)
            )
        else:
            yield word


def _of_all(path: str) -> tuple[str, int]:
    """Return the word for all shards and their number for a first shard, or else the path and 0."""
    shard = _SHARD.fullmatch(path)
    if not shard or shard["number"] != "1":
        return path, 0
    return f"{shard['folder'] or ''}*-of-{shard['count']}.h5", int(shard["count"])
