"""The reference of the configuration's keys is that of the schema as it is."""

import json

import pytest
import yaml
from conftest import ROOT
from jsonschema import Draft202012Validator

from blindspots.config import reference

SCHEMA = reference.json_schema()
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def test_the_schema_for_editors_is_in_step():
    assert (ROOT / "config/schema.json").read_text() == reference.written(SCHEMA)


def test_the_page_is_in_step():
    page = (ROOT / "config/README.md").read_text()
    assert page == reference.with_reference(page, SCHEMA)


def test_editors_are_pointed_to_the_schema():
    assert (ROOT / "config/config.yaml").read_text().splitlines()[
        0
    ] == "# yaml-language-server: $schema=schema.json"


@pytest.mark.parametrize("part", [SCHEMA, *SCHEMA["$defs"].values()], ids=lambda part: part["title"])
def test_every_key_has_a_description(part):
    assert [key for key, value in part.get("properties", {}).items() if not value.get("description")] == []


def test_the_paper_s_experiment_fits_the_schema():
    assert list(Draft202012Validator(SCHEMA).iter_errors(DEFAULT)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("attack", "margins"), 1.0),
        (("attack", "sample"), "some"),
        (("networks", "M1", "units"), ["class"]),
        (("tables", "table4", "kind"), "matrix"),
    ],
)
def test_what_the_workflow_refuses_the_schema_refuses(path, value):
    changed = json.loads(json.dumps(DEFAULT))
    *sections, key = path
    section = changed
    for name in sections:
        section = section[name]
    section[key] = value
    assert list(Draft202012Validator(SCHEMA).iter_errors(changed)) != []
