"""Loading of the configuration: from the written text to the checked configuration and its variants."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from blindspots.config.ablations import ABLATIONS, REFERENCE
from blindspots.config.errors import ConfigError, error_line
from blindspots.config.merging import merged
from blindspots.config.networks import Network, Pretrained
from blindspots.config.schema import Config

# Keys whose value may be null. A test compares them with the schema.
MAY_BE_NULL = {
    "amplified_to",
    "folder",
    "given_targets",
    "minibatches",
    "path",
    "perturbed",
    "pretraining",
    "variable",
}
_INTEGER = "tag:yaml.org,2002:int"
# YAML 1.1 reads these numbers in base 8 and in base 60.
_OTHER_BASE = re.compile(r"[-+]?0[0-9_]+|[-+]?[0-9_]+(:[0-9]+)+")


def check_written(path: Path) -> None:
    """Check a file for text that YAML silently reads in an unexpected way.

    One case is a key that is there twice, of which only the last one counts. The other is a number in base 8
    (010) or base 60 (1:30). JSON files, and files that are not valid YAML, are not checked here.

    Args:
        path: The file.
    Raises:
        ConfigError: If there is such a key or number.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return
    try:
        document = yaml.compose(text)
    except yaml.YAMLError:
        return  # Snakemake has reported it.
    _check_node(document, path)


def _check_node(node: yaml.Node | None, path: Path) -> None:
    line = f"{path}, line {node.start_mark.line + 1}" if node else path
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(
                    f"{line}: {key} stands there more than once, and the last alone would count: join them"
                )
        for key, value in node.value:
            _check_node(key, path)
            _check_node(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_node(value, path)
    elif isinstance(node, yaml.ScalarNode) and node.tag == _INTEGER and _OTHER_BASE.fullmatch(node.value):
        number = yaml.safe_load(node.value)
        raise ConfigError(
            f"{line}: {node.value} is {number} in YAML: write that, or the number without zeros before it"
        )


def validated(raw: Mapping[str, Any]) -> Config:
    """Check a configuration.

    Args:
        raw: The configuration as it is written.
    Returns:
        The checked configuration.
    Raises:
        ConfigError: If a key is wrong. The message is one line with every wrong key.
    """
    try:
        return Config.model_validate(_with_classes(_with_nulls(raw)))
    except ValidationError as error:
        raise ConfigError("; ".join(error_line(problem, raw) for problem in error.errors())) from None


def variants(raw: Mapping[str, Any]) -> dict[str, Config]:
    """Return the variants: the experiment with other seeds, and with one other choice at a time.

    All ablations share the settings of `ablations.every`. So does the experiment that they are compared with.

    Args:
        raw: The configuration of the experiment as it is written.
    Returns:
        The checked configurations by name.
    Raises:
        ConfigError: If a key is wrong, as for `validated`.
    """
    config = validated(raw)
    every, choices = config.ablations.every, config.ablations.choices
    ablated = {
        f"{ABLATIONS}/{name}": _with_images_enough(config, merged(every, choices.get(name, {})))
        for name in config.ablations.names()
    }
    return {
        name: _variant(name, merged(raw, change), config)
        for name, change in (config.replicated() | ablated).items()
    }


def _with_images_enough(config: Config, change: Mapping[str, Any]) -> dict[str, Any]:
    """Return an ablation's changes, with a sample that is no larger than the smaller image set."""
    sample = _sample(change)
    smaller = min(config.data.train_size, config.data.test_size)
    return merged(
        change, {"attack": {"sample": smaller}} if isinstance(sample, int) and sample > smaller else {}
    )


def _sample(change: Mapping[str, Any]) -> Any:
    attack = change.get("attack")
    return attack.get("sample") if isinstance(attack, Mapping) else None


def _variant(name: str, raw: Mapping[str, Any], base: Config) -> Config:
    try:
        variant = validated(raw)
        for network, definition in variant.networks.items():
            if network in base.networks and _made_by(definition) != _made_by(base.networks[network]):
                raise ConfigError(
                    f"networks.{network}: its `kind`, whether it is linear and whether it has `perturbed` "
                    "are not ablated; make it a network of its own"
                )
    except ConfigError as error:
        place = (
            "ablations.every" if name.endswith(REFERENCE) else f"ablations.choices.{name.rpartition('/')[2]}"
        )
        raise ConfigError(f"{place}: {error}") from None
    return variant


def _made_by(network: Network) -> tuple:
    """Return the properties that decide which rules make a network and its examples.

    The rules are the same for all variants, so these properties may not change.
    """
    return isinstance(network, Pretrained), network.linear, getattr(network, "perturbed", None) is not None


def _with_classes(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the word `classes` among a network's units by the number of classes of the data."""
    data, networks = raw.get("data"), raw.get("networks")
    if not isinstance(data, Mapping) or not isinstance(networks, Mapping):
        return dict(raw)

    def counted(network: Any) -> Any:
        if not isinstance(network, Mapping) or not isinstance(network.get("units"), list):
            return network
        return {
            **network,
            "units": [data.get("classes") if unit == "classes" else unit for unit in network["units"]],
        }

    return {**raw, "networks": {name: counted(network) for name, network in networks.items()}}


def _with_nulls(value: Any) -> Any:
    """Replace the text "null" by None. After --config on the command line, nulls arrive as text.

    For other keys "null" is a name like any other.
    """
    if isinstance(value, Mapping):
        return {
            key: None if key in MAY_BE_NULL and item == "null" else _with_nulls(item)
            for key, item in value.items()
        }
    return [_with_nulls(item) for item in value] if isinstance(value, list) else value
