"""The torch device of a step, with its threads and determinism."""

import os

import torch
from threadpoolctl import threadpool_limits

from blindspots.step import Step, StepError


def prepare(step: Step, name: str) -> torch.device:
    """Make torch deterministic on the step's threads, and return the device: `auto` is CUDA where there is one.

    Raises StepError if CUDA is asked for and there is none.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if step.threads > os.cpu_count():
        raise StepError(f"threads: {step.threads} are asked for, but this machine has {os.cpu_count()} cores: ask for fewer")
    torch.set_num_threads(step.threads)
    threadpool_limits(step.threads)  # of NumPy's and SciPy's BLAS, whose sums depend on it too
    torch.set_flush_denormal(True)  # weights of dark pixels decay to these, which some CPUs multiply 10 times slower
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.allow_tf32 = False  # its rounding is larger than the margin of an adversarial example
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise StepError("device: cuda is asked for, but torch finds no CUDA device here: use auto or cpu")
    device = torch.device("cuda" if available and name != "cpu" else "cpu")
    on_cpu = f"cpu with {torch.backends.cpu.get_cpu_capability()}"
    step.device = torch.cuda.get_device_name(device) if device.type == "cuda" else on_cpu
    return device
