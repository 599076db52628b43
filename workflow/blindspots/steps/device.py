"""The torch device of a step, and deterministic settings for torch."""

import ctypes
import os

import torch
from threadpoolctl import threadpool_limits

from blindspots.steps.step import Step, StepError

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # from malloc.h
_AT_MOST = 2**25  # bytes; glibc accepts no more


def prepare(step: Step, name: str) -> torch.device:
    """Make torch deterministic, and choose the device.

    Each operation uses one thread, as its sums would depend on the number of threads. A step with several
    threads gives each thread its own pieces of work (see `parallel`).

    Args:
        step: The step. The name of the device is set in `step.device`, for the record.
        name: cpu, cuda, or auto, which is CUDA if there is a CUDA device.
    Returns:
        The device.
    Raises:
        StepError: If CUDA is requested and there is no CUDA device.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(1)
    threadpool_limits(1)  # for the BLAS of NumPy and SciPy
    _keep_freed_memory()
    # The weights of dark pixels decay to denormal numbers. Some CPUs multiply these 10 times slower.
    torch.set_flush_denormal(True)
    # The function use_deterministic_algorithms would import a compiler, which takes over a second.
    torch.set_deterministic_debug_mode("error")
    # Filling would write every new tensor one more time.
    torch.utils.deterministic.fill_uninitialized_memory = False
    # TF32's rounding error is larger than the margin of an adversarial example.
    torch.backends.cudnn.allow_tf32 = False
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise StepError("device: cuda is asked for, but torch finds no CUDA device here: use auto or cpu")
    device = torch.device("cuda" if available and name != "cpu" else "cpu")
    on_cpu = f"cpu with {torch.backends.cpu.get_cpu_capability()}"
    step.device = torch.cuda.get_device_name(device) if device.type == "cuda" else on_cpu
    return device


def _keep_freed_memory() -> None:
    """Let the process keep the memory of freed tensors for the next ones.

    New pages from the kernel cost many times what an elementwise operation on them costs. This is worst on a
    virtual machine.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # True for glibc.
        libc.mallopt(_MMAP_THRESHOLD, _AT_MOST)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
