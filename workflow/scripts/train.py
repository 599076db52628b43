"""Train one network by full-batch L-BFGS until convergence, with every iteration on record."""

import torch

from blindspots import datasets, networks, training
from blindspots.artifacts import Dataset
from blindspots.device import prepare
from blindspots.step import Progress, Step, log, run


def body(step: Step) -> None:
    device = prepare(step, step.settings["device"])
    part = datasets.read_split(step.input("splits"), step.settings["trained_on"])
    images, labels = datasets.read(step.input("data"), "train", part)
    network = networks.build(step.settings["network"], images[0].shape)
    networks.initialise(network, torch.Generator().manual_seed(step.settings["seed"]))
    log.info("%d images, %d parameters", len(images), sum(p.numel() for p in network.parameters()))
    trained = training.fit(
        network.to(device),
        torch.from_numpy(images).to(device),
        torch.from_numpy(labels).long().to(device),
        **step.settings["training"],
        report=Progress(),
    )
    last = trained.history[-1]
    log.info(
        "%s after %d iterations (%s): loss %.6f, largest gradient component %.1e, training error %.2f %%",
        "converged" if trained.converged else "NOT converged",
        len(trained.history),
        trained.message,
        last.loss,
        last.gradient_max,
        100 * last.error,
    )
    loss, gradient_norm, gradient_max, error, evaluations = zip(*trained.history, strict=True)
    step.write(
        {
            **{f"parameters/{key}": Dataset(value.cpu(), "weights") for key, value in network.state_dict().items()},
            "image_shape": Dataset(images[0].shape, "height and width of an image"),
            "converged": Dataset(trained.converged, trained.message),
            "history/loss": Dataset(loss, "(iterations,) mean cross-entropy plus weight decay"),
            "history/gradient_norm": Dataset(gradient_norm, "(iterations,) 2-norm of the loss's gradient"),
            "history/gradient_max": Dataset(gradient_max, "(iterations,) largest component of the loss's gradient"),
            "history/error": Dataset(error, "(iterations,) fraction of the training images misclassified"),
            "history/evaluations": Dataset(evaluations, "(iterations,) gradients computed so far"),
        }
    )


def main(argv=None) -> int:
    return run(body, "scripts.train", ("data", "splits"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
