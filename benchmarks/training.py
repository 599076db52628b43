"""Compare training on working sets with the plain full batch: python benchmarks/training.py

It trains M1, M1' and M2 from several seeds by both methods, each on one core. It prints a Markdown table with
the CPU seconds, the loss, the errors on P1, P2 and test, and the mean minimum distortion by the paper's
procedure. The table also has how often the examples for a network fool another network. Each number is the
mean ± the standard deviation over the seeds. The difference is within the spread if Welch's test does not
tell the methods apart at the 1 % level. With --workers 2, two cores train at the same time, and they may
disturb each other. The images are those of results/data.h5 and results/splits.h5:

    snakemake --cores 1 results/splits.h5
"""

import argparse
import itertools
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch
import yaml
from scipy import stats
from torch import Tensor, nn

from blindspots.attack.core import minimum_distortion
from blindspots.config.loading import validated
from blindspots.config.schema import Config
from blindspots.networks import architectures
from blindspots.networks.evaluation import classify
from blindspots.steps import image_sets
from blindspots.steps.device import prepare
from blindspots.training import convergence

NAMES = ("M1", "M1_prime", "M2")
HISTORY = {"full_batch": 10}  # pairs, as in the ablation; by default the configured number
Images = dict[str, tuple[Tensor, Tensor]]


def main() -> int:
    options = arguments()
    splits = options.results / "splits.h5"
    if not splits.exists():
        print(f"{splits} is missing: run snakemake --cores 1 {splits} first.", file=sys.stderr)
        return 1
    rows = []
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as workers:
        jobs = list(
            itertools.product(range(options.seeds), convergence.METHODS, [options.results], [options.images])
        )
        for (seed, method, *_), found in zip(jobs, workers.map(trained_and_attacked, jobs), strict=True):
            rows += [{"method": method, **row} for row in found]
            print(f"seed {seed + 1} of {options.seeds}, {method}", file=sys.stderr)
    print(compared(pd.DataFrame(rows)).to_markdown(index=False))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each network")
    parser.add_argument("--images", type=int, default=300, help="test images that are attacked")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of data.h5 and splits.h5"
    )
    parser.add_argument("--workers", type=int, default=1, help="trainings at the same time")
    return parser.parse_args()


def read(path: Path, *which) -> tuple[Tensor, Tensor]:
    images, labels = image_sets.read(path, *which)
    return torch.from_numpy(images), torch.from_numpy(labels).long()


def trained_and_attacked(job: tuple[int, str, Path, int]) -> list[dict]:
    """Train and attack the three networks from one seed by one method, and return rows of the measurements.

    job: the seed, the method, the folder of results, and the number of images to attack.
    """
    seed, method, results, count = job
    prepare(SimpleNamespace(threads=1), "cpu")
    config = validated(yaml.safe_load(Path("config/config.yaml").read_text()))
    data, splits = results / "data.h5", results / "splits.h5"
    images = {part: read(data, "train", image_sets.read_split(splits, part)) for part in ("P1", "P2")}
    images["test"] = read(data, "test")
    made, rows = {}, []
    for name in NAMES:
        made[name], figures = trained(config, name, seed, method, images)
        figures |= {f"error on {part} (%)": 100 * error(made[name], *of) for part, of in images.items()}
        rows += [{"network": name, "figure": figure, "value": value} for figure, value in figures.items()]
    return rows + list(attacked(made, images["test"], count))


def trained(
    config: Config, name: str, seed: int, method: str, images: Images
) -> tuple[nn.Module, dict[str, float]]:
    """The trained network, frozen, and the measurements of its training."""
    definition, options = config.networks[name], config.training
    x, y = images[definition.trained_on]
    network = architectures.build(definition.definition(), x[0].shape)
    architectures.initialise(network, torch.Generator().manual_seed(definition.seed + 1000 * seed))
    start = time.process_time()
    found = convergence.fit(
        network,
        x,
        y,
        weight_decay=definition.weight_decay,
        decay_convention=options.decay_convention,
        method=method,
        gradient_tolerance=options.gradient_tolerance,
        max_iterations=options.max_iterations,
        history=HISTORY.get(method, options.history),
    )
    seconds, last = time.process_time() - start, found.history[-1]
    if not found.converged:
        print(f"{name} by {method}: {found.message}", file=sys.stderr)
    return architectures.frozen(network), {
        "seconds": seconds,
        "gradients of all images": last.evaluations,
        "loss": last.loss,
    }


def attacked(made: dict[str, nn.Module], test: tuple[Tensor, Tensor], count: int):
    """Rows with the mean distortion for each network, and with the error of every other on its examples."""
    x, y = (values[:count] for values in test)
    for name, network in made.items():
        found = minimum_distortion(network, x, "random", labels=y, method="lbfgs")
        distortion = found.distortion.double().nanmean().item()
        yield {"network": name, "figure": "mean distortion", "value": distortion}
        for other in (other for other in made if other != name):
            rate = 100 * error(made[other], found.images, y)
            yield {"network": name, "figure": f"error of {other} on its examples (%)", "value": rate}


def error(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    return (classify(network, images) != labels).double().mean().item()


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """A line for each network and measured quantity.

    It has both methods, their ratio, and whether the spread over the seeds explains the difference.
    """
    lines = []
    for (network, figure), group in rows.groupby(["network", "figure"], sort=False):
        new, plain = (group.loc[group["method"] == method, "value"] for method in convergence.METHODS)
        several = len(new) > 1 and (new.std() > 0 or plain.std() > 0)
        p = stats.ttest_ind(new, plain, equal_var=False).pvalue if several else float("nan")
        lines.append(
            {
                "network": network,
                "": figure,
                "working set": spread(new),
                "full batch": spread(plain),
                "ratio": f"{new.mean() / plain.mean():.3f}" if plain.mean() else "",
                "p": f"{p:.2g}" if several else "",
                "within the spread": ("yes" if p > 0.01 else "no") if several else "",
            }
        )
    return pd.DataFrame(lines)


def spread(values: pd.Series) -> str:
    """The mean ± the standard deviation, if there is more than one value."""
    return f"{values.mean():.4g} ± {values.std():.2g}" if len(values) > 1 else f"{values.mean():.4g}"


if __name__ == "__main__":
    raise SystemExit(main())
