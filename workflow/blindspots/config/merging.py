"""One configuration changed by another."""

from collections.abc import Mapping
from typing import Any


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `change` in its place, key by key, as Snakemake merges configuration files."""
    both = dict(base)
    for key, value in change.items():
        sections = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = merged(both[key], value) if sections else value
    return both
