"""The section `ablations` of the configuration."""

from typing import Annotated, Any

from pydantic import AfterValidator

from blindspots.config.types import Name, Section

ABLATIONS, REFERENCE = "ablations", "as_configured"
# All variants share these sections, so another choice in them would change nothing.
_SHARED = ("data", "splits", "evaluation", "units", "replicates", "ablations")


def _choice(change: dict[str, Any]) -> dict[str, Any]:
    wrong = [key for key in change if key in _SHARED]
    pictures = change.get("pictures", {})
    if not isinstance(pictures, dict):
        raise ValueError(f"pictures: {pictures} is no section; give what differs in it, by key")
    wrong += [f"pictures.{key}" for key in pictures if key != "attack"]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: not ablated; use a configuration of its own, with --directory")
    return change


class Ablations(Section):
    """The experiment with one choice changed at a time: settings by a choice's name."""

    tables: list[str]
    """The tables that are made for each choice."""
    every: Annotated[dict[str, Any], AfterValidator(_choice)]
    """What differs from the experiment for all choices."""
    choices: dict[Name, Annotated[dict[str, Any], AfterValidator(_choice)]]
    """Each choice by name: the keys that it changes."""

    def names(self) -> list[str]:
        """Return the names of all choices.

        Returns:
            First the name of the configured experiment, then the others in alphabetical order. Nothing
            depends on the order in the configuration.
        """
        return [REFERENCE, *sorted(self.choices)]
