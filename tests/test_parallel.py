"""Pieces of work on several threads, with the results and the arithmetic of one."""

import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from threadpoolctl import threadpool_info

from blindspots.fingerprint import WORKFLOW
from blindspots.parallel import Workers


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_results_come_in_the_order_of_the_items_whatever_the_number_of_threads(threads):
    values = [torch.randn(200, 300, generator=torch.Generator().manual_seed(seed)) for seed in range(17)]
    with Workers(threads) as workers:
        products = list(workers.map(lambda value: value @ value.T, values))
    with Workers(1) as workers:
        assert all(torch.equal(a, b) for a, b in zip(products, workers.map(lambda v: v @ v.T, values), strict=True))


def test_as_many_pieces_as_there_are_threads_are_computed_at_the_same_time():
    meeting = threading.Barrier(3, timeout=10)
    with Workers(3) as workers:
        assert sorted(workers.map(lambda _: meeting.wait(), range(3))) == [0, 1, 2]


def test_torch_computes_each_piece_with_one_thread_and_has_its_threads_again_afterwards():
    torch.set_num_threads(2)
    try:
        with Workers(2) as workers:
            assert list(workers.map(lambda _: torch.get_num_threads(), range(4))) == [1] * 4
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_no_library_computes_a_piece_with_more_than_one_thread():
    def threads(_):
        torch.ones(4, 4) @ torch.ones(4, 4)
        return {library["num_threads"] for library in threadpool_info() if library["internal_api"] == "openmp"}

    with Workers(2) as workers:
        assert all(found <= {1} for found in workers.map(threads, range(4)))


def test_numbers_too_small_to_be_normal_are_zero_on_every_thread_if_they_are_on_the_first():
    tiny = torch.full((4,), 1e-40)
    assert torch.set_flush_denormal(True)
    try:
        with Workers(2) as workers:
            assert list(workers.map(lambda _: (tiny * 0.5).sum().item(), range(4))) == [0.0] * 4
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("enabled", [True, False])
def test_pieces_have_gradients_where_their_caller_has_them(threads, enabled):
    with Workers(threads) as workers, torch.set_grad_enabled(enabled):
        assert list(workers.map(lambda _: torch.is_grad_enabled(), range(4))) == [enabled] * 4
        assert torch.is_grad_enabled() == enabled


def test_the_first_error_of_a_piece_is_raised():
    with Workers(2) as workers, pytest.raises(ValueError, match="'a'"):
        list(workers.map(lambda text: int(text), ["1", "a", "2", "b"]))


@pytest.mark.parametrize("threads", [0, -1])
def test_there_is_one_thread_at_least(threads):
    with pytest.raises(ValueError, match="has to be 1 at least"):
        Workers(threads)


def test_a_program_that_is_interrupted_does_not_wait_for_its_threads():
    program = """
import sys, time
sys.orig_argv[:] = [sys.executable, "-m", "scripts.attack"]
import scripts
from blindspots.parallel import Workers
with Workers(2) as workers:
    pieces = workers.map(time.sleep, [60, 60])
    print("begun", flush=True)
    list(pieces)
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=WORKFLOW, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "begun\n"
        run.send_signal(signal.SIGINT)
        begun = time.monotonic()
        assert run.wait() == -signal.SIGINT
        assert time.monotonic() - begun < 30
