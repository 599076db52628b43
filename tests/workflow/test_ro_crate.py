"""The archive of a run says where every number comes from, as others' tools read it, and can be run again."""

import csv
import json
import shutil
import tomllib
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
import requests
import yaml
from conftest import PROJECT, ROOT, SMALL, planned_rules, snakemake

from blindspots.audit.records import Run
from blindspots.steps import artifacts

ARCHIVE = "results/archive.zip"
CONTEXT = Path(__file__).parent / "ro-crate-1.1-context.json"


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory) -> Path:
    """A finished run with its archive."""
    folder = Path(
        shutil.copytree(finished, tmp_path_factory.mktemp("archived") / "run", copy_function=shutil.copy2)
    )
    made = snakemake(folder, *SMALL, ARCHIVE, cores=1)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture
def unpacked(run, tmp_path) -> Path:
    with zipfile.ZipFile(run / ARCHIVE) as archive:
        archive.extractall(tmp_path / "unpacked")
    return tmp_path / "unpacked"


@pytest.fixture(scope="module")
def entities(run):
    with zipfile.ZipFile(run / ARCHIVE) as archive:
        return {
            entity["@id"]: entity for entity in json.loads(archive.read("ro-crate-metadata.json"))["@graph"]
        }


def of_type(entities, kind):
    return [entity for entity in entities.values() if kind in many(entity["@type"])]


def many(values):
    return values if isinstance(values, list) else [values]


def references(entity, key):
    return [reference["@id"] for reference in many(entity.get(key, []))]


def table_cells(run):
    for path in run.glob("results/*.cells.csv"):
        with open(path, newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)


# --- As the validator sees it ---


@pytest.fixture
def issues(monkeypatch, tmp_path):
    """What the profile's validator finds wrong with a crate. It
    has no network, and the one context is served from here."""
    services = pytest.importorskip("rocrate_validator.services", reason="roc-validator is not installed")
    from rocrate_validator.utils.http import HttpRequester

    def get(self, url, **options):
        assert url == json.loads(CONTEXT.read_text())["@id"], "nothing else is asked of the network"
        response = requests.Response()
        response.status_code, response._content = 200, CONTEXT.read_bytes()
        response.headers["Content-Type"] = "application/ld+json"
        return response

    monkeypatch.setattr(HttpRequester, "get", get, raising=False)

    def found(folder):
        profile = {"profile_identifier": "provenance-run-crate", "requirement_severity": "RECOMMENDED"}
        options = {"rocrate_uri": str(folder), "offline": True, "cache_path": tmp_path / "cache"}
        return {issue.message for issue in services.validate(profile | options).get_issues()}

    return found


def test_all_that_is_required_and_recommended_is_there_but_for_places_on_the_web(run, issues):
    assert issues(run / ARCHIVE) == {
        "The Application SHOULD have a url",
        "The SoftwareApplication id SHOULD be an absolute URI",
        "The organization SHOULD have a URL.",
    }


MISSING = [
    ("#make/results/networks/M1.h5", "instrument", "The Action MUST have an instrument property"),
    ("#run", "instrument", "MUST reference the root data entity's mainEntity as its instrument"),
    ("#step/train_network", "workExample", "A HowToStep must refer to its corresponding tool"),
    ("#orchestration", "result", "An OrganizeAction must reference the action representing the workflow run"),
]


def test_the_validator_sees_what_is_missing(unpacked, issues):
    path = unpacked / "ro-crate-metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    for broken, key, _ in MISSING:
        (entity,) = [entity for entity in metadata["@graph"] if entity["@id"] == broken]
        del entity[key]
    path.write_text(json.dumps(metadata), encoding="utf-8")
    (unpacked / "results/table4.csv").unlink()
    found = issues(unpacked)
    for message in ("results/table4.csv", *(message for _, _, message in MISSING)):
        assert any(message in issue for issue in found), message


# --- What it says ---


def test_every_cell_is_there_with_its_interval_and_the_papers_number(run, entities):
    cells = list(table_cells(run))
    assert len(cells) > 100
    for cell in cells:
        entity = entities["#{table}/{row}/{column}".format(**cell)]
        assert entity["@id"] in references(entities["./"], "mentions")
        numbers = {"value": cell["value"], "minValue": cell["ci_low"], "maxValue": cell["ci_high"]}
        known = {key: float(value) for key, value in numbers.items() if value}
        assert {key: entity[key] for key in numbers.keys() & entity} == known
        assert entity["unitText"] == cell["unit"]
        papers = [entities[name] for name in references(entity, "valueReference")]
        expected = [(cell["paper"], f"ours: {cell['verdict']}")] if cell["paper"] else []
        assert [(paper["value"], paper["description"]) for paper in papers] == expected


def test_every_cells_chain_reaches_the_data(run, entities):
    made_by = {
        result: action
        for action in of_type(entities, "CreateAction")
        for result in references(action, "result")
    }
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    raw = {f"#{file['name']}": file["sha256"] for file in config["data"]["files"].values()}
    photographs = {f"#{name}": digest for name, digest in config["pictures"]["files"].items()}
    weights = {
        f"#{network['weights']['name']}": network["weights"]["sha256"]
        for name, network in config["networks"].items()
        if name.startswith("EfficientNet")
    }

    def origins(name):
        """The files behind a file that no job made."""
        if name not in made_by:
            return {name}
        objects = [used for used in references(made_by[name], "object") if entities[used]["@type"] == "File"]
        return set().union(*map(origins, objects))

    for cell in table_cells(run):
        derived = references(entities["#{table}/{row}/{column}".format(**cell)], "wasDerivedFrom")
        artifacts, arrays = cell["artifact"].split(";"), cell["array"].split(";")
        for name, artifact, array in zip(derived, artifacts, arrays, strict=True):
            assert references(entities[name], "isPartOf") == [f"#{artifact}"]
            assert name == f"#{artifact}/{array}"
            behind = origins(f"#{artifact}")
            if photographs.keys() & behind:
                assert behind - weights.keys() == photographs.keys()
            else:
                assert behind == raw.keys()
    known = raw | photographs | weights
    assert {name: entities[name]["sha256"] for name in known} == known


def test_hashes_are_those_of_the_files(run, entities):
    records = [entity for entity in of_type(entities, "File") if "localPath" in entity]
    assert len(records) > 50
    for entity in records:
        assert entity["identifier"] == artifacts.identity(run / entity["localPath"])
    for cell in table_cells(run):
        for source in Run(run).sources(cell):
            assert entities[f"#{source.artifact}/{source.array}"]["sha256"] == source.sha256
    with zipfile.ZipFile(run / ARCHIVE) as archive:
        for name in references(entities["./"], "hasPart"):
            content = archive.read(name)
            assert entities[name]["sha256"] == sha256(content).hexdigest()
            assert int(entities[name]["contentSize"]) == len(content)


def test_a_job_has_its_program_settings_inputs_and_times(run, entities):
    action = entities["#make/results/networks/M2.h5"]
    with artifacts.read(run / "results/networks/M2.h5") as file:
        record = dict(file.attrs)
    assert action["startTime"] == record["started"]
    assert action["startTime"] < action["endTime"]
    (tool,) = references(action, "instrument")
    assert tool == "workflow/scripts/train_network.py"
    assert entities[tool]["version"] == record["code"]
    packages = [entities[name] for name in references(entities[tool], "softwareRequirements")]
    assert {entity["name"]: entity["softwareVersion"] for entity in packages} == json.loads(
        record["packages"]
    )
    used = [entities[name] for name in references(action, "object")]
    assert {"#results/data.h5", "#results/splits.h5"} == {
        entity["@id"] for entity in used if entity["@type"] == "File"
    }
    settings = {entity["name"]: entity["value"] for entity in used if entity["@type"] == "PropertyValue"}
    recorded = json.loads(record["settings"])
    assert settings.keys() == recorded.keys()
    assert settings["seed"] == 3
    assert json.loads(settings["network"]) == recorded["network"]


def test_steps_are_rules_in_an_order_in_which_they_can_run(entities):
    steps = sorted(of_type(entities, "HowToStep"), key=lambda step: step["position"])
    names = [step["name"] for step in steps]
    rules = "\n".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    assert all(f"\nrule {name}:\n" in rules for name in names)
    order = [
        name
        for name in names
        if name
        in (
            "fetch_images",
            "split_images",
            "train_network",
            "attack_network",
            "refine_examples",
            "gather_shards",
        )
    ]
    assert order == [
        "fetch_images",
        "split_images",
        "train_network",
        "attack_network",
        "refine_examples",
        "gather_shards",
    ]


# --- The file itself ---


def test_the_archive_has_what_it_should_and_nothing_else(run, entities):
    project = {
        path.relative_to(ROOT).as_posix()
        for name in PROJECT
        for path in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path)
    }
    results = {
        path.relative_to(run).as_posix()
        for pattern in ("*.csv", "*.md", "*.html", "*.png", "figures/*.png", "provenance.json")
        for path in (run / "results").glob(pattern)
    }
    assert {
        "results/table4.cells.csv",
        "results/table4.png",
        "results/claims.md",
        "results/provenance.json",
    } <= results
    made = {"ro-crate-metadata.json", "config/as_run.json"}
    with zipfile.ZipFile(run / ARCHIVE) as archive:
        names = archive.namelist()
        for name in (project | results) & set(names):
            assert archive.read(name) == (run / name).read_bytes()
    assert set(names) == project | results | made
    assert len(names) == len(set(names))
    assert set(references(entities["./"], "hasPart")) == set(names) - {"ro-crate-metadata.json"}


def test_the_same_run_makes_the_same_bytes(run):
    before = (run / ARCHIVE).read_bytes()
    (run / ARCHIVE).unlink()
    again = snakemake(run, *SMALL, ARCHIVE, cores=1, PYTHONHASHSEED="7", TZ="Asia/Tokyo")
    assert again.returncode == 0, again.stderr
    assert (run / ARCHIVE).read_bytes() == before


def test_another_content_of_any_file_makes_another_archive(run, tmp_path):
    clone = Path(shutil.copytree(run, tmp_path / "clone", copy_function=shutil.copy2))
    (clone / "README.md").touch()
    assert planned_rules(snakemake(clone, *SMALL, ARCHIVE, "-n", cores=1)) == set()
    with open(clone / "README.md", "a") as file:
        file.write("\n")
    assert planned_rules(snakemake(clone, *SMALL, ARCHIVE, "-n", cores=1)) == {"archive_run"}


def test_an_unpacked_archive_can_be_run_again_with_its_configuration(unpacked):
    planned = snakemake(
        unpacked, "--configfile=config/as_run.json", "--directory=again", ARCHIVE, "-n", cores=1
    )
    assert {
        "fetch_images",
        "train_network",
        "attack_network",
        "tabulate_transfer",
        "archive_run",
    } <= planned_rules(planned)


def test_an_unpacked_archive_that_is_run_again_has_the_same_results(unpacked):
    again = snakemake(unpacked, "--configfile=config/as_run.json", "--directory=again")
    assert again.returncode == 0, again.stderr
    deposited = {path.relative_to(unpacked / "results") for path in (unpacked / "results").rglob("*.*")}
    with_times_and_hosts = {Path("provenance.json"), Path("audit.html")}
    compared = deposited - with_times_and_hosts - {Path("README.md")}
    assert {
        Path("table4.csv"),
        Path("table1.cells.csv"),
        Path("figures/training.png"),
        Path("claims.md"),
    } <= compared
    differ = [
        str(path)
        for path in sorted(compared)
        if (unpacked / "again/results" / path).read_bytes() != (unpacked / "results" / path).read_bytes()
    ]
    assert differ == []
    audited = snakemake(unpacked, "--configfile=config/as_run.json", "--directory=again", "audit")
    assert audited.returncode == 0, audited.stdout + audited.stderr


def test_the_configuration_is_the_one_that_was_run(unpacked):
    merged = json.loads((unpacked / "config/as_run.json").read_text())
    small = yaml.safe_load((ROOT / "config/small.yaml").read_text())
    default = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    assert merged["splits"]["parts"] == small["splits"]["parts"]
    assert merged["data"] == default["data"]


# --- How the project is cited ---


def test_the_citation_says_what_the_project_says():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert citation["abstract"] == project["description"]
    assert citation["keywords"] == project["keywords"]
    assert citation["authors"] == project["authors"]
    assert citation["references"][0]["url"] == project["urls"]["Paper"]
    assert f"# {citation['title']}" == (ROOT / "README.md").read_text().partition("\n")[0]
    assert (ROOT / "LICENSE").read_text().startswith(f"{project['license']} License")
    assert citation["authors"][0]["name"] in (ROOT / "LICENSE").read_text()
