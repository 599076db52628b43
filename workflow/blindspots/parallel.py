"""Independent pieces of work on several threads: what comes out does not depend on how many there are.

Each piece is computed by one of torch's threads, so that its sums have one order, and what is made of the pieces is made
in the order in which they were given.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """Threads that are there for the length of a `with` block, in which torch itself uses one thread for an operation.

    threads: how many pieces are computed at the same time.
    """

    def __init__(self, threads: int):
        if threads < 1:
            raise ValueError(f"threads is {threads}: it has to be 1 at least")
        self._threads = threads

    def __enter__(self) -> "Workers":
        self._before = torch.get_num_threads()
        torch.set_num_threads(1)
        # In each thread too, since MKL keeps its own number for every one, by itself that of the environment.
        self._pool = ThreadPoolExecutor(self._threads, "", torch.set_num_threads, (1,)) if self._threads > 1 else None
        return self

    def __exit__(self, *error) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._before)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The function's results for the items, in the items' order, each as soon as it and those before are there."""
        if not self._pool:
            return map(function, items)
        enabled = torch.is_grad_enabled()  # each thread has its own mode

        def as_here(item: Item) -> Result:
            with torch.set_grad_enabled(enabled):
                return function(item)

        return self._pool.map(as_here, items)
