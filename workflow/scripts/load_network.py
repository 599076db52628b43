"""Load the weights of a pretrained network from its verified file and store them as an artifact."""

import io
import pickle

import torch

from blindspots.data import downloads
from blindspots.networks import architectures
from blindspots.steps.artifacts import Array
from blindspots.steps.step import Step, StepError, log, run


def body(step: Step) -> None:
    """Obtain the file of the weights and write the network.

    Args:
        step: The run. Its settings are `network` (the architecture), `image_shape` and `weights` (the file's
            name and checksum). Unrecorded are the `sources`.
    Raises:
        StepError: If no source has the file, or if it does not have the weights of this network.
    """
    settings = step.settings
    weights = settings["weights"]
    network = architectures.build(settings["network"], settings["image_shape"])
    try:
        content = downloads.obtain(
            {weights["name"]: weights["sha256"]}, step.unrecorded["sources"], downloads.default_cache()
        )
        found = torch.load(io.BytesIO(content[weights["name"]]), map_location="cpu", weights_only=True)
        architectures.load_matching_weights(network, found)
    except downloads.DownloadError as error:
        raise StepError(str(error)) from error
    except (ValueError, RuntimeError, AttributeError, pickle.UnpicklingError) as error:
        raise StepError(f"{weights['name']} has no weights of this network: {error}") from error
    log.info("%d parameters", sum(p.numel() for p in network.parameters()))
    step.write(
        {
            **{f"parameters/{key}": Array(value, "weights") for key, value in network.state_dict().items()},
            "image_shape": Array(settings["image_shape"], "colours, height and width of an image"),
        }
    )


def main(argv=None) -> int:
    return run(body, "scripts.load_network", (), argv)


if __name__ == "__main__":
    raise SystemExit(main())
