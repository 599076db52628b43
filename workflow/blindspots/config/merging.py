"""Merging of a configuration with changes to it."""

from collections.abc import Mapping
from typing import Any


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Merge changes into a configuration, key by key, as Snakemake merges configuration files.

    Args:
        base: The configuration.
        change: The changes. Sections are merged; any other value replaces that of the configuration.
    Returns:
        The merged configuration.
    """
    both = dict(base)
    for key, value in change.items():
        sections = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = merged(both[key], value) if sections else value
    return both
