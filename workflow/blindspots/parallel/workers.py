"""Independent pieces of work on several threads or processes: what comes out does not depend on how many there are.

Each piece is computed by one thread, so that its sums have one order, and what is made of the pieces is made
in the order in which they were given.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import numpy as np
import torch

_ON_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG: a copy ends when the process that it is of does

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
        self._pool = (
            ThreadPoolExecutor(self._threads, "", torch.set_num_threads, (1,)) if self._threads > 1 else None
        )
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


class Processes:
    """The same by processes, which share no interpreter: quicker where a piece is many small operations.

    Each is a copy of this one as it is at `map`, so that functions and their data need not be sent. What comes back are
    tuples of tensors on the CPU; what a piece changes elsewhere is lost. Only where `can_fork` says so.
    """

    def __init__(self, processes: int):
        self._processes = processes

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *error) -> None:
        pass

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """The function's results for the items, in the items' order, each as soon as it and those before are there.

        Raises MemoryError if a process is killed, as it is for want of memory.
        """
        copies = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(
            min(self._processes, len(items)), copies, _begin, (function, os.getpid())
        ) as pool:
            try:
                for kind, arrays in pool.map(_compute, items):
                    yield kind(*map(torch.from_numpy, arrays))
            except BrokenProcessPool:
                raise MemoryError("a process was killed at its work") from None
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def can_fork() -> bool:
    """Whether a copy of this process can go on with torch: on Linux, without a GPU, whose threads it would lack."""
    return sys.platform == "linux" and not torch.cuda.is_available()


def _begin(function: Callable, parent: int) -> None:
    global _function
    _function = function
    torch.set_num_threads(1)
    ctypes.CDLL(None).prctl(_ON_PARENTS_DEATH, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def _compute(item: Item) -> tuple[type, list[np.ndarray]]:
    """As arrays, since torch would hand tensors over as files that end with this process."""
    result = _function(item)
    return type(result), [values.numpy() for values in result]
