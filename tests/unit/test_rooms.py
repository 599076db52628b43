"""The import rules of docs/architecture.md: which room may import which."""

import grimp
import pytest

MAY_IMPORT = {
    "parallel": set(),
    "solvers": set(),
    "data": set(),
    "networks": {"parallel"},
    "analysis": {"networks"},
    "attack": {"data", "networks", "parallel", "solvers"},
    "training": {"attack", "networks", "parallel", "solvers"},
    "steps": {"attack", "networks", "parallel"},
    "report": {"analysis", "steps"},
    "config": {"data"},
    "audit": {"config", "data", "report", "steps"},
}
COMMANDS = {
    "blindspots.audit.__main__",
    "blindspots.own_data",
}  # which alone read the workflow's configuration
GRAPH = grimp.build_graph("blindspots", "scripts", cache_dir=None)


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_room_has_its_rule():
    assert {room(module) for module in GRAPH.find_children("blindspots")} == {*MAY_IMPORT, "own_data"}


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(name):
    modules = {f"blindspots.{name}"} | GRAPH.find_descendants(f"blindspots.{name}")
    imported = {
        (module, other)
        for module in modules
        for other in GRAPH.find_modules_directly_imported_by(module)
        if room(other) not in {name, *MAY_IMPORT[name]}
    }
    assert imported == set()


def test_no_room_imports_one_that_imports_it():
    reached = {name: set(allowed) for name, allowed in MAY_IMPORT.items()}
    for _ in MAY_IMPORT:
        reached = {
            name: others.union(*(reached[other] for other in others)) for name, others in reached.items()
        }
    assert [name for name, others in reached.items() if name in others] == []


def test_programs_and_rooms_know_nothing_of_the_workflows_configuration():
    readers = {
        module
        for configuration in {"blindspots.config"} | GRAPH.find_descendants("blindspots.config")
        for module in GRAPH.find_modules_that_directly_import(configuration)
    }
    assert {module for module in readers if not module.startswith("blindspots.config")} == COMMANDS


def test_a_packages_file_imports_nothing_but_what_it_offers():
    # A fingerprint counts the packages that a module lies in, but does not follow what their files import.
    packages = {f"blindspots.{name}" for name in MAY_IMPORT}
    importing = {package for package in packages if GRAPH.find_modules_directly_imported_by(package)}
    assert importing == {"blindspots.attack"}
    assert {
        module
        for module in GRAPH.modules
        if "blindspots.attack" in GRAPH.find_modules_directly_imported_by(module)
    } == set()
