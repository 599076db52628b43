"""Train one network by L-BFGS until convergence, or in minibatches, as its definition says.

The artifact also has the history of the training.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from blindspots.networks import architectures
from blindspots.parallel.chunks import in_chunks
from blindspots.steps import image_sets
from blindspots.steps.artifacts import Array
from blindspots.steps.checkpoints import Checkpoint
from blindspots.steps.device import prepare
from blindspots.steps.step import Progress, Step, log, run
from blindspots.training import autoencoder, convergence, minibatches
from blindspots.training.record import Trained

_MEANINGS = {  # the arrays of a training's history
    "loss": "the total loss of all images, weight decay included",
    "gradient_norm": "2-norm of the loss's gradient",
    "gradient_max": "largest component of the loss's gradient",
    "error": "images misclassified, a fraction; in pretraining the rms of x̂ - x",
    "evaluations": "gradients computed so far, in those of all images",
}


def body(step: Step) -> None:
    """Train the network and write it with the history of its training.

    Args:
        step: The run. Its inputs are `data` and `splits`. Its settings are `network` (the architecture),
            `trained_on`, `weight_decay`, `seed`, `training`, `device` and, if the network has them,
            `pretraining` or `minibatches`.
    """
    if step.settings.get("minibatches"):
        in_minibatches(step)
    else:
        to_convergence(step)


def to_convergence(step: Step) -> None:
    """Train the network by L-BFGS until convergence and write it.

    If the settings have pretraining, an autoencoder trains the first layer. Then only the layers above it are
    trained on the labels, and the first layer stays as it is.

    Args:
        step: The run, as for `body`.
    """
    settings = step.settings
    network, x, y, generator = _begin(step)
    until = {
        key: settings["training"][key]
        for key in ("method", "gradient_tolerance", "max_iterations", "history")
    }
    until |= {"threads": step.threads, "report": Progress()}
    if not (pretraining := settings.get("pretraining")):
        _end(step, network, x, convergence.fit(network, x, y, **_decay(settings), **until))
        return
    encoder, above = network[:3], network[3:]
    pretrained = autoencoder.pretrain(encoder, x, **until | pretraining, generator=generator)
    log.info(
        "pretrained by %.1f gradients of all images (%s)",
        pretrained.history[-1].evaluations,
        pretrained.message,
    )
    with torch.no_grad():
        features = torch.cat([encoder(part) for part in in_chunks(x)])
    trained = convergence.fit(above, features, y, **_decay(settings), **until)
    _end(step, network, x, trained, _record("pretraining", pretrained))


def in_minibatches(step: Step, make_term: Callable[..., minibatches.Term] | None = None) -> None:
    """Train the network by Adam in minibatches and write it.

    A run that was killed goes on from the checkpoint beside its output.

    Args:
        step: The run, as for `body`.
        make_term: A function that returns the term of the loss. Its arguments are the settings, the network,
            the images (n, ...) and their labels (n,). By default the loss is the cross-entropy of the images.
    """
    settings = step.settings
    network, x, y, _ = _begin(step)
    pixels, labels = image_sets.read(step.input("data"), "test")
    checkpoint = Checkpoint(step.output[0].with_suffix(".checkpoint"), step.identity())
    fitted = minibatches.fit(
        network,
        x,
        y,
        **_decay(settings),
        **settings["minibatches"],
        seed=settings["seed"],
        term=make_term(settings, network, x, y) if make_term else None,
        watched=(torch.from_numpy(pixels).to(x.device), torch.from_numpy(labels).long().to(x.device)),
        checkpoint=checkpoint,
        report=Progress(),
    )
    meaning = "(points,) test images misclassified, a fraction; nothing depends on it"
    _end(step, network, x, fitted.trained, {"history/error_test": Array(fitted.watched, meaning)})
    checkpoint.remove()


def _begin(step: Step) -> tuple[nn.Sequential, Tensor, Tensor, torch.Generator]:
    """The network to train, its images and labels, and the random generator that drew its weights."""
    settings = step.settings
    device = prepare(step, settings["device"])
    part = image_sets.read_split(step.input("splits"), settings["trained_on"])
    images, labels = image_sets.read(step.input("data"), "train", part)
    network = architectures.build(settings["network"], images[0].shape)
    generator = torch.Generator().manual_seed(settings["seed"])
    architectures.initialise(network, generator)
    log.info("%d images, %d parameters", len(images), sum(p.numel() for p in network.parameters()))
    return (
        network.to(device),
        torch.from_numpy(images).to(device),
        torch.from_numpy(labels).long().to(device),
        generator,
    )


def _decay(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "weight_decay": settings["weight_decay"],
        "decay_convention": settings["training"]["decay_convention"],
    }


def _end(
    step: Step, network: nn.Module, x: Tensor, trained: Trained, more: Mapping[str, Array] | None = None
) -> None:
    """Log the end of the training, and write the network with its history and `more` arrays."""
    last = trained.history[-1]
    log.info(
        "%s after %.1f gradients of all images (%s): %s, training error %.4f",
        _outcome(trained, step.settings),
        last.evaluations,
        trained.message,
        last.described,
        last.error,
    )
    step.write(
        {
            **{
                f"parameters/{key}": Array(value.cpu(), "weights")
                for key, value in network.state_dict().items()
            },
            "image_shape": Array(x.shape[1:], "height and width of an image"),
            "converged": Array(trained.converged, trained.message),
            **_record("history", trained),
            **(more or {}),
        }
    )


def _outcome(trained: Trained, settings: Mapping[str, Any]) -> str:
    if settings.get("minibatches"):  # such a training has no criterion of convergence
        return "ended"
    return "converged" if trained.converged else "NOT converged"


def _record(name: str, trained: Trained) -> dict[str, Array]:
    """The arrays of a training's history, under the name of a group."""
    columns = zip(trained.history[0]._fields, zip(*trained.history, strict=True), strict=True)
    return {f"{name}/{field}": Array(values, f"(points,) {_MEANINGS[field]}") for field, values in columns}


def main(argv=None) -> int:
    return run(body, "scripts.train_network", ("data", "splits"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
