"""Train one network with perturbed outputs of its layers.

The perturbations are adversarial examples from pools, gradient steps, or noise.
"""

from blindspots.steps.step import Step, run
from blindspots.training.perturbed import term
from scripts.train_network import in_minibatches


def body(step: Step) -> None:
    """Train the network and write it with the history of its training.

    Args:
        step: The run. Its inputs are `data` and `splits`. Its settings are those of `train_network` with
            `minibatches`, and `perturbed`.
    """
    in_minibatches(
        step, lambda settings, *training: term(settings["perturbed"], *training, seed=settings["seed"])
    )


def main(argv=None) -> int:
    return run(body, "scripts.train_perturbed", ("data", "splits"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
