"""Train one network, by full-batch L-BFGS until convergence or as its definition says, with every iteration on record."""

import torch

from blindspots import autoencoder, datasets, networks, training
from blindspots.artifacts import Dataset
from blindspots.device import prepare
from blindspots.step import Progress, Step, log, run
from blindspots.training import Trained


def body(step: Step) -> None:
    settings = step.settings
    device = prepare(step, settings["device"])
    part = datasets.read_split(step.input("splits"), settings["trained_on"])
    images, labels = datasets.read(step.input("data"), "train", part)
    network = networks.build(settings["network"], images[0].shape)
    generator = torch.Generator().manual_seed(settings["seed"])
    networks.initialise(network, generator)
    log.info("%d images, %d parameters", len(images), sum(p.numel() for p in network.parameters()))
    x, y = torch.from_numpy(images).to(device), torch.from_numpy(labels).long().to(device)
    trained, pretrained = _train(network.to(device), x, y, settings, generator)
    last = trained.history[-1]
    log.info(
        "%s after %d iterations (%s): loss %.6f, largest gradient component %.1e, training error %.4f",
        _outcome(trained, settings),
        len(trained.history),
        trained.message,
        last.loss,
        last.gradient_max,
        last.error,
    )
    step.write(
        {
            **{f"parameters/{key}": Dataset(value.cpu(), "weights") for key, value in network.state_dict().items()},
            "image_shape": Dataset(images[0].shape, "height and width of an image"),
            "converged": Dataset(trained.converged, trained.message),
            **_record("history", trained),
            **(_record("pretraining", pretrained) if pretrained else {}),
        }
    )


def _train(network, x, y, settings, generator) -> tuple[Trained, Trained | None]:
    """Train as the network's definition says; the second record is that of the first layer's pretraining."""
    options = {"weight_decay": settings["weight_decay"], "decay_convention": settings["training"]["decay_convention"]}
    until = {key: settings["training"][key] for key in ("gradient_tolerance", "max_iterations", "history")}
    if minibatches := settings.get("minibatches"):
        seed = settings["seed"]
        return training.fit_in_minibatches(network, x, y, **options, **minibatches, seed=seed, report=Progress()), None
    if not (pretraining := settings.get("pretraining")):
        return training.fit(network, x, y, **options, **until, report=Progress()), None
    encoder, above = network[:3], network[3:]
    pretrained = autoencoder.pretrain(encoder, x, **until | pretraining, generator=generator, report=Progress())
    log.info("pretrained for %d iterations (%s)", len(pretrained.history), pretrained.message)
    with torch.no_grad():  # the first layer is not fine-tuned
        features = torch.cat([encoder(part) for part in training.in_parts(x)])
    return training.fit(above, features, y, **options, **until, report=Progress()), pretrained


def _outcome(trained: Trained, settings: dict) -> str:
    if settings.get("minibatches"):  # with dropout, there is nothing to converge to
        return "ended"
    return "converged" if trained.converged else "NOT converged"


def _record(name: str, trained: Trained) -> dict[str, Dataset]:
    loss, gradient_norm, gradient_max, error, evaluations = zip(*trained.history, strict=True)
    return {
        f"{name}/loss": Dataset(loss, "(iterations,) the total loss, weight decay included"),
        f"{name}/gradient_norm": Dataset(gradient_norm, "(iterations,) 2-norm of the loss's gradient"),
        f"{name}/gradient_max": Dataset(gradient_max, "(iterations,) largest component of the loss's gradient"),
        f"{name}/error": Dataset(error, "(iterations,) images misclassified, a fraction; in pretraining the rms of x̂ - x"),
        f"{name}/evaluations": Dataset(evaluations, "(iterations,) gradients computed so far"),
    }


def main(argv=None) -> int:
    return run(body, "scripts.train", ("data", "splits"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
