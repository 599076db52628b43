"""The torch device of a step, and torch's determinism."""

import ctypes
import os

import torch
from threadpoolctl import threadpool_limits

from blindspots.steps.step import Step, StepError

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_AT_MOST = 2**25  # bytes; the most that glibc takes


def prepare(step: Step, name: str) -> torch.device:
    """Make torch deterministic, and return the device: `auto` is CUDA where there is one.

    Each operation is one thread's, as its sums would depend on the number of threads: a step that has several gives them
    pieces of work of their own (see `parallel`).

    Raises StepError if CUDA is asked for and there is none.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(1)
    threadpool_limits(1)  # of NumPy's and SciPy's BLAS
    _keep_freed_memory()
    torch.set_flush_denormal(
        True
    )  # weights of dark pixels decay to these, which some CPUs multiply 10 times slower
    torch.set_deterministic_debug_mode(
        "error"
    )  # for use_deterministic_algorithms imports a compiler, for over a second
    torch.utils.deterministic.fill_uninitialized_memory = False  # which would fill every new tensor once more
    torch.backends.cudnn.allow_tf32 = (
        False  # its rounding is larger than the margin of an adversarial example
    )
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise StepError("device: cuda is asked for, but torch finds no CUDA device here: use auto or cpu")
    device = torch.device("cuda" if available and name != "cpu" else "cpu")
    on_cpu = f"cpu with {torch.backends.cpu.get_cpu_capability()}"
    step.device = torch.cuda.get_device_name(device) if device.type == "cuda" else on_cpu
    return device


def _keep_freed_memory() -> None:
    """Let the process keep what tensors leave, for the next ones: pages out of the kernel's hands, above all on a virtual
    machine, cost many times what an elementwise operation does with them."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # as glibc has
        libc.mallopt(_MMAP_THRESHOLD, _AT_MOST)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
