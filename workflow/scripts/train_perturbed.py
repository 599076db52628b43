"""Train one network with perturbed outputs of its layers: adversarial examples from pools, gradient steps, or noise."""

from blindspots.steps.step import Step, run
from blindspots.training.perturbed import term
from scripts.train_network import in_minibatches


def body(step: Step) -> None:
    in_minibatches(
        step, lambda settings, *training: term(settings["perturbed"], *training, seed=settings["seed"])
    )


def main(argv=None) -> int:
    return run(body, "scripts.train_perturbed", ("data", "splits"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
