"""Trained networks, read from their artifacts."""

import json
from pathlib import Path

import torch
from torch import nn

from blindspots.networks import architectures
from blindspots.steps import artifacts


def read(path: Path) -> nn.Module:
    """Read a trained network from its artifact.

    Args:
        path: The artifact of the network.
    Returns:
        The network, frozen.
    Raises:
        ArtifactError: If the artifact cannot be read or is damaged.
    """
    with artifacts.read(path) as file:
        network = architectures.build(
            json.loads(file.attrs["settings"])["network"], file["image_shape"][()].tolist()
        )
        network.load_state_dict(
            {name: torch.from_numpy(values[()]) for name, values in file["parameters"].items()}
        )
    return architectures.frozen(network)
