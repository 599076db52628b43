"""Pieces of work on several threads or processes, with the results and the arithmetic of one."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from typing import NamedTuple

import psutil
import pytest
import torch
from threadpoolctl import threadpool_info

from blindspots.parallel.workers import Processes, Workers, can_fork
from blindspots.steps.fingerprint import WORKFLOW


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_results_come_in_the_order_of_the_items_whatever_the_number_of_threads(threads):
    values = [torch.randn(200, 300, generator=torch.Generator().manual_seed(seed)) for seed in range(17)]
    with Workers(threads) as workers:
        products = list(workers.map(lambda value: value @ value.T, values))
    with Workers(1) as workers:
        assert all(
            torch.equal(a, b) for a, b in zip(products, workers.map(lambda v: v @ v.T, values), strict=True)
        )


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
        return {
            library["num_threads"] for library in threadpool_info() if library["internal_api"] == "openmp"
        }

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
sys.orig_argv[:] = [sys.executable, "-m", "scripts.attack_network"]
import scripts
from blindspots.parallel.workers import Workers
with Workers(2) as workers:
    pieces = workers.map(time.sleep, [60, 60])
    print("begun", flush=True)
    list(pieces)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=WORKFLOW, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout.readline() == "begun\n"
        run.send_signal(signal.SIGINT)
        begun = time.monotonic()
        assert run.wait() == -signal.SIGINT
        assert time.monotonic() - begun < 30


class Both(NamedTuple):
    a: torch.Tensor
    b: torch.Tensor


@pytest.mark.skipif(not can_fork(), reason="a copy of a process cannot go on with torch here")
class TestProcesses:
    @pytest.mark.parametrize("processes", [1, 2, 3, 8])
    def test_results_come_in_the_order_of_the_items_whatever_the_number_of_processes(self, processes):
        values = [torch.randn(20, 30, generator=torch.Generator().manual_seed(seed)) for seed in range(17)]
        with Processes(processes) as workers:
            found = list(
                workers.map(
                    lambda index: Both(values[index] @ values[index].T, torch.tensor(index)), range(17)
                )
            )
        assert all(torch.equal(pair.a, value @ value.T) for pair, value in zip(found, values, strict=True))
        assert [pair.b.item() for pair in found] == [*range(17)]

    def test_pieces_are_computed_by_other_processes_at_the_same_time(self):
        meeting = multiprocessing.get_context("fork").Barrier(3)
        with Processes(3) as workers:
            met = workers.map(
                lambda _: Both(torch.tensor(meeting.wait(10)), torch.tensor(os.getpid())), range(3)
            )
            places, others = zip(*met, strict=True)
        assert sorted(place.item() for place in places) == [0, 1, 2]
        assert len({other.item() for other in others} | {os.getpid()}) == 4

    def test_an_error_is_raised_here(self):
        def refuse(item):
            raise ValueError(f"{item} is refused")

        with Processes(2) as workers, pytest.raises(ValueError, match="0 is refused"):
            list(workers.map(refuse, range(5)))

    def test_a_killed_process_is_told_as_want_of_memory(self):
        with Processes(2) as workers, pytest.raises(MemoryError, match="killed at its work"):
            list(workers.map(lambda _: os.kill(os.getpid(), signal.SIGKILL), range(4)))

    def test_copies_end_with_what_they_are_copies_of(self):
        program = (
            "import os, time\n"
            "from blindspots.parallel.workers import Processes\n"
            "with Processes(2) as workers:\n"
            "    list(workers.map(lambda _: print(os.getpid(), flush=True) or time.sleep(60), range(2)))\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(WORKFLOW)}
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
        ) as run:
            copies = [psutil.Process(int(run.stdout.readline())) for _ in range(2)]
            run.kill()
        gone, alive = psutil.wait_procs(copies, timeout=10)
        assert len(gone) == 2
        assert not alive
