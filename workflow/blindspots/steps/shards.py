"""Many shards as one word, so that no command grows with their number: a system limits what a command can hold.

`folder/*-of-60.h5` stands for `folder/1-of-60.h5` to `folder/60-of-60.h5`, whatever files are there.
"""

import re
from collections.abc import Iterable, Iterator

_SHARD = re.compile(r"(?P<folder>.*/)?(?P<number>\*|\d+)-of-(?P<count>\d+)\.h5")


def collapsed(paths: Iterable[str]) -> list[str]:
    """The same paths, but with one word for all shards of a folder that follow each other from the first to the last."""
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
    """The paths that words of `collapsed` stand for; any other path is its own word."""
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
    """The word for all shards, and their number, where a path is the first one; else a number of 0."""
    shard = _SHARD.fullmatch(path)
    if not shard or shard["number"] != "1":
        return path, 0
    return f"{shard['folder'] or ''}*-of-{shard['count']}.h5", int(shard["count"])
