"""Where a step computes, and with how many threads."""

import platform
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest
import scipy.optimize  # noqa: F401 (SciPy brings a BLAS of its own)
import torch
from conftest import ROOT
from threadpoolctl import threadpool_info, threadpool_limits

from blindspots.steps.device import prepare


def test_every_operation_of_every_library_is_one_threads():
    threadpool_limits(2)
    step = SimpleNamespace()
    prepare(step, "cpu")
    assert {library["num_threads"] for library in threadpool_info()} == {1}
    assert step.device.startswith("cpu with ")


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this CPU has no such mode")
def test_numbers_too_small_to_be_normal_are_zero():
    prepare(SimpleNamespace(), "cpu")
    assert torch.tensor([1e-38]).mul(0.1).item() == 0.0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this is glibc's")
def test_what_tensors_leave_is_kept_for_the_next_ones():
    prepare(SimpleNamespace(), "cpu")
    image = torch.rand(500, 784)  # 383 pages of 4 KiB

    def new_pages():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            [image + 1 for _ in range(5)]  # all five are there at once, and then none
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    new_pages()
    assert new_pages() < 1000  # of 38,300


def test_new_memory_is_not_filled():
    torch.utils.deterministic.fill_uninitialized_memory = True
    prepare(SimpleNamespace(), "cpu")
    assert not torch.empty(1000).isnan().all()  # some of what was there before may be


def test_convolutions_on_a_gpu_are_not_rounded_to_fewer_digits(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    prepare(SimpleNamespace(), "cpu")
    assert not torch.backends.cudnn.allow_tf32


def test_what_has_no_deterministic_form_is_an_error():
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    prepare(SimpleNamespace(), "cpu")
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_deterministic_debug_mode(before)


def test_a_job_does_not_wait_for_libraries_that_it_does_not_use():
    program = "import sys; from types import SimpleNamespace; import scripts.attack_network; "
    program += "from blindspots.steps.device import prepare; "
    program += "prepare(SimpleNamespace(), 'cpu'); "
    program += "print({'torchvision', 'torch._dynamo', 'pandas', 'scipy', 'matplotlib'} & sys.modules.keys())"
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT / "workflow", capture_output=True, text=True, check=True
    )
    assert run.stdout == "set()\n"
