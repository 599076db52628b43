"""Independent parts of work on several threads or processes.

The results do not depend on the number of threads or processes.
Each part is computed by one thread, and so the order of its sums is fixed.
The results of the parts are combined in the order in which the parts were given.
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

# PR_SET_PDEATHSIG of Linux: a worker process gets a signal when its parent process ends.
_ON_PARENTS_DEATH = 1

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """A pool of threads for the duration of a `with` block.

    Within the block torch uses one thread for each operation.
    The former number of torch threads is restored at the end of the block.

    Args:
        threads: The number of parts that are computed at the same time.
    Raises:
        ValueError: If `threads` is smaller than 1.
    """

    def __init__(self, threads: int):
        if threads < 1:
            raise ValueError(f"threads is {threads}: it has to be 1 at least")
        self._threads = threads

    def __enter__(self) -> "Workers":
        self._before = torch.get_num_threads()
        torch.set_num_threads(1)
        # Each thread needs this call too, because MKL keeps a separate number of threads for each of them.
        # By default that number comes from the environment.
        self._pool = (
            ThreadPoolExecutor(self._threads, "", torch.set_num_threads, (1,)) if self._threads > 1 else None
        )
        return self

    def __exit__(self, *error) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._before)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Apply a function to items in parallel.

        Args:
            function: The function of one item. It runs in the gradient mode of the caller.
            items: The items, one for each part of the work.
        Returns:
            The results in the order of the items. Each is available as soon as it and all before it are
            computed.
        """
        if not self._pool:
            return map(function, items)
        enabled = torch.is_grad_enabled()  # Torch keeps a separate gradient mode for each thread.

        def as_here(item: Item) -> Result:
            with torch.set_grad_enabled(enabled):
                return function(item)

        return self._pool.map(as_here, items)


class Processes:
    """A pool of processes, with the interface of `Workers`.

    Processes do not share an interpreter.
    They are faster than threads where a part has many small operations.
    Each process is a copy of the current process at the time of the call of `map`.
    Functions and their data therefore need not be sent.
    Each part has to return a named tuple of tensors on the CPU.
    All other changes that a part makes are lost.
    The class may be used only where `can_fork` returns True.

    Args:
        processes: The number of parts that are computed at the same time.
    """

    def __init__(self, processes: int):
        self._processes = processes

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *error) -> None:
        pass

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Apply a function to items in parallel.

        Args:
            function: The function of one item. It returns a named tuple of tensors on the CPU.
            items: The items, one for each part of the work. There is at least one.
        Returns:
            The results in the order of the items. Each is available as soon as it and all before it are
            computed.
        Raises:
            MemoryError: If a process is killed, which happens when memory runs out.
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
    """Check whether a forked copy of this process can use torch.

    A copy would lack the threads that torch uses for a GPU.

    Returns:
        True on Linux without a CUDA GPU, and False otherwise.
    """
    return sys.platform == "linux" and not torch.cuda.is_available()


def _begin(function: Callable, parent: int) -> None:
    """Prepare a worker process, which uses one thread and ends when its parent process ends."""
    global _function
    _function = function
    torch.set_num_threads(1)
    ctypes.CDLL(None).prctl(_ON_PARENTS_DEATH, signal.SIGKILL)
    if os.getppid() != parent:  # The parent ended before the call of prctl.
        os._exit(1)


def _compute(item: Item) -> tuple[type, list[np.ndarray]]:
    """Compute the result of an item, as its type and its arrays.

    Torch would hand over tensors as shared files, which are lost when this process ends.
    """
    result = _function(item)
    return type(result), [values.numpy() for values in result]
