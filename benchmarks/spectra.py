"""Measure the time and memory for the frame bounds and Lipschitz constants of AlexNet, as a Markdown table.

The network is torchvision's, with random weights. The work depends on its shape alone, except for the number
of iterations for the norms.

    python benchmarks/spectra.py [--threads 2]
"""

import argparse
import resource
import time

import torch
from torchvision.models import alexnet

from blindspots.analysis.lipschitz import linear_maps

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--threads", type=int, default=2)
arguments = parser.parse_args()
torch.set_num_threads(arguments.threads)
torch.manual_seed(0)
network = alexnet(weights=None).eval()


def peak() -> float:
    """The peak of the process's memory so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


before, start = peak(), time.perf_counter()
maps = linear_maps(network, (3, 224, 224), seed=0)
seconds = time.perf_counter() - start

print(
    f"{seconds:.0f} s on {arguments.threads} threads; at most {peak():.2f} GiB, of it {before:.2f} before\n"
)
print("| Layer | Size | Lower bound | Upper bound | Norm | Residual | Lipschitz |")
print("| --- | --- | --- | --- | --- | --- | --- |")
for row in maps:
    numbers = (*row.bounds, row.norm, row.residual, row.lipschitz)
    print(f"| {row.label} | {row.size} | {' | '.join(f'{number:.3g}' for number in numbers)} |")
