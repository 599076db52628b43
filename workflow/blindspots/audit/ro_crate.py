"""A finished run as a research object: an RO-Crate with the profile Provenance Run Crate, in a zip file.

All metadata come from the archived files, most of them from results/provenance.json. The same files give the
same bytes. So identifiers are paths and hashes, and dates are those of the records.
"""

import ast
import hashlib
import json
import re
import tomllib
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from rocrate.model import ContextEntity, Entity
from rocrate.rocrate import ROCrate

METADATA, CONFIGURATION, WORKFLOW = "ro-crate-metadata.json", "config/as_run.json", "Snakefile"
OUTPUT = "output"  # the only formal parameter that is not an input
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
BIOSCHEMAS = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
# The context of RO-Crate 1.1 lacks these terms. The first is from the profiles, the second from a
# later version.
TERMS = {
    "sha256": "https://w3id.org/ro/terms/workflow-run#sha256",
    "localPath": "https://w3id.org/ro/terms#localPath",
}
BINARY = "application/octet-stream"
FORMATS = {
    ".csv": "text/csv",
    ".h5": "application/x-hdf5",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".png": "image/png",
    ".py": "text/x-python",
    ".yaml": "application/yaml",
}


def described(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Add the metadata of the RO-Crate to the files of an archive.

    Args:
        files: The contents by path.
    Returns:
        The contents by path, with the metadata.
    """
    metadata = _Crate(files).metadata.generate()
    return {**files, METADATA: (json.dumps(metadata, indent=1, ensure_ascii=False) + "\n").encode()}


def write(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a zip file whose bytes do not depend on the time and place of writing.

    Args:
        path: The file to be written.
        files: The contents by path.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)


class _Crate(ROCrate):
    """All that is known about a run, from the whole to each cell of its tables."""

    def __init__(self, files: Mapping[str, bytes]):
        super().__init__(version="1.1")  # the version of RO-Crate that the profiles build on
        self.metadata.extra_terms = TERMS
        exported = json.loads(files["results/provenance.json"])
        self.known = exported["files"]
        self.records = {path: file["record"] for path, file in self.known.items() if "record" in file}
        self.project = tomllib.loads(files["pyproject.toml"].decode())["project"]
        self.authors = self.entity("#authors", "Organization", name=self.project["authors"][0]["name"])
        self.paper = self.entity(
            self.project["urls"]["Paper"], "ScholarlyArticle", name="The paper that is reproduced"
        )
        # The values of each formal parameter of the workflow and its programs: (owner, name) -> entities.
        self.arguments: defaultdict[tuple[Entity, str], dict[Entity, None]] = defaultdict(dict)

        (version,) = re.findall(r"^snakemake==(.+)$", files["envs/constraints.txt"].decode(), re.MULTILINE)
        self.add_workflow(dest_path=WORKFLOW, main=True, lang="snakemake", lang_version=version)
        for path, content in sorted(files.items()):
            self.archived(path, content)
        actions = self.run(files, version)
        cells = [self.cell(cell) for table in exported["tables"].values() for cell in table["cells"]]
        for name, table in exported["tables"].items():
            self.entity(f"results/{name}.cells.csv", "File", description=table["title"])
        self.formal_parameters()
        self.root(files["README.md"].decode().partition("\n")[0].removeprefix("# "), [*actions, *cells])

    def entity(self, uri: str, kind: str | list[str], /, **properties: Any) -> Entity:
        """Return an entity with further properties. It is added to the crate at its first use."""
        entity = self.get(uri) or self.add(ContextEntity(self, uri))
        entity.properties()["@type"] = kind
        for key, value in properties.items():
            if value is not None:
                entity[key] = value[0] if isinstance(value, list) and len(value) == 1 else value
        return entity

    def archived(self, path: str, content: bytes) -> None:
        """Describe a file of the archive."""
        digest, kind = hashlib.sha256(content).hexdigest(), FORMATS.get(Path(path).suffix, "text/plain")
        if path not in self:
            self.add_file(dest_path=path)
        self.entity(
            path, "File", name=path, encodingFormat=kind, contentSize=str(len(content)), sha256=digest
        )

    def artifact(self, path: str) -> Entity:
        """Describe a file of the run that is too large for the archive.

        A file with a relative path would have to be in the archive. If the identifier is a fragment, the file
        does not belong to the crate's data and may be absent. Then `localPath` gives its path in a run, as
        RO-Crate 1.2 explains. The file's identifier is the hash in the records. It is not the SHA-256 of the
        bytes, which depend on the time.
        """
        record = self.records.get(path)
        identifier = f"content:{record['content_sha256']}" if record else self.known[path]["identity"]
        kind = FORMATS.get(Path(path).suffix, BINARY)
        return self.entity(
            f"#{path}", "File", name=path, localPath=path, encodingFormat=kind, identifier=identifier
        )

    def raw_data(self, record: Mapping[str, Any]) -> list[Entity]:
        """Describe the files that existed before the run: the data set, pictures, or a network's weights."""
        settings = record["settings"]
        match record["program"]:
            case "scripts.fetch_images":
                known = {file["name"]: file["sha256"] for file in settings["files"].values()}
            case "scripts.fetch_pictures":
                known = settings["files"] if settings["folder"] is None else {}
            case "scripts.load_network":
                known = {settings["weights"]["name"]: settings["weights"]["sha256"]}
            case _:
                known = {}
        return [
            self.entity(f"#{name}", "File", name=name, encodingFormat=BINARY, sha256=digest)
            for name, digest in known.items()
        ]

    def array(self, source: Mapping[str, Any]) -> Entity:
        """Describe an array of an artifact."""
        return self.entity(
            f"#{source['artifact']}/{source['array']}",
            "Dataset",
            name=source["array"],
            description=source["meaning"],
            size=" × ".join(map(str, source["shape"])),
            sha256=source["sha256"],
            isPartOf=self.artifact(source["artifact"]),
        )

    def cell(self, cell: Mapping[str, Any]) -> Entity:
        """Describe a cell of a table."""
        uri, unit = "#{table}/{row}/{column}".format(**cell), cell["unit"]
        paper, verdict = cell["paper"], f"ours: {cell['verdict']}"
        if paper is not None:
            number = {"name": "the paper's number", "value": paper, "unitText": unit, "description": verdict}
            paper = self.entity(f"{uri}/paper", "PropertyValue", wasDerivedFrom=self.paper, **number)
        return self.entity(
            uri,
            "PropertyValue",
            name=f"{cell['table']}: {cell['row_label']} × {cell['column_label']}",
            description=f"n = {cell['n']}" + ("" if cell["ci_low"] is None else ", with the 95 % interval"),
            value=cell["value"],
            unitText=unit,
            minValue=cell["ci_low"],
            maxValue=cell["ci_high"],
            measurementTechnique=cell["formula"],
            valueReference=paper,
            wasDerivedFrom=[self.array(source) for source in cell["sources"]],
            isPartOf=self.get(f"results/{cell['table']}.cells.csv"),
        )

    def argument(self, whose: Entity, name: str, entity: Entity) -> Entity:
        """Register an entity as a value of a formal parameter, and return the entity."""
        self.arguments[whose, name][entity] = None
        return entity

    def formal_parameters(self) -> None:
        """Describe the formal parameters of the workflow and its programs."""
        for (whose, name), entities in self.arguments.items():
            kind = next(iter(entities)).type
            parameter = self.entity(f"#{whose.id}/{name}", "FormalParameter", name=name, additionalType=kind)
            whose.append_to("output" if name == OUTPUT else "input", parameter, compact=True)
            for entity in entities:
                entity.append_to("exampleOfWork", parameter, compact=True)

    def software(self, name: str, version: str) -> Entity:
        """Describe a package with its version."""
        return self.entity(f"#{name}-{version}", "SoftwareApplication", name=name, softwareVersion=version)

    def tool(self, program: str, source: bytes) -> Entity:
        """Describe a program."""
        records = [record for record in self.records.values() if record["program"] == program]
        packages = sorted({package for record in records for package in record["packages"].items()})
        return self.entity(
            _path(program),
            ["File", "SoftwareSourceCode"],
            name=program,
            description=ast.get_docstring(ast.parse(source)),
            version=sorted({record["code"] for record in records}),
            softwareRequirements=[self.software(*package) for package in packages],
        )

    def setting(self, tool: Entity, name: str, value: Any) -> Entity:
        """Describe a setting of a program with its value."""
        text = json.dumps(value, sort_keys=True)
        uri = f"#{tool.id}/{name}/{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        plain = value if isinstance(value, (str, int, float)) else text
        return self.argument(tool, name, self.entity(uri, "PropertyValue", name=name, value=plain))

    def job(self, tool: Entity, path: str, record: Mapping[str, Any]) -> Entity:
        """Describe a run of a program."""
        start = datetime.fromisoformat(record["started"])
        end = start + timedelta(seconds=record["wall_seconds"])
        changes = " and uncommitted changes" if record["git_dirty"] else ""
        inputs = [(role, self.artifact(name)) for role, names in record["inputs"].items() for name in names]
        inputs += [("data_set", file) for file in self.raw_data(record)]
        settings = [self.setting(tool, *setting) for setting in record["settings"].items()]
        return self.entity(
            f"#make/{path}",
            "CreateAction",
            name=f"Making {path}",
            description=f"python -m {record['program']}; "
            f"commit: {record['git_commit'] or 'unknown'}{changes}; "
            f"processor: {record['cpu']}; threads: {record['threads']}; device: {record['device']}",
            instrument=tool,
            object=[*(self.argument(tool, role, entity) for role, entity in inputs), *settings],
            result=self.argument(tool, OUTPUT, self.artifact(path)),
            startTime=start.isoformat(timespec="milliseconds"),
            endTime=end.isoformat(timespec="milliseconds"),
            agent=self.authors,
        )

    def run(self, files: Mapping[str, bytes], version: str) -> list[Entity]:
        """Describe the workflow with its rules as steps, and all actions.

        There is an action for each rule, for each artifact, and for the whole run.
        """
        tools, steps, controls, jobs = [], [], [], []
        for position, program in enumerate(_in_order(self.records), start=1):
            rule = program.removeprefix("scripts.")
            tool = self.tool(program, files[_path(program)])
            step = self.entity(f"#step/{rule}", "HowToStep", name=rule, position=position, workExample=tool)
            made = [
                self.job(tool, path, record)
                for path, record in self.records.items()
                if record["program"] == program
            ]
            control = self.entity(
                f"#control/{rule}", "ControlAction", name=f"Rule {rule}", instrument=step, object=made
            )
            for of_all, one in ((tools, tool), (steps, step), (controls, control)):
                of_all.append(one)
            jobs += made

        workflow = self.entity(
            WORKFLOW,
            ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            conformsTo=self.entity(BIOSCHEMAS, "CreativeWork", name="Bioschemas ComputationalWorkflow"),
            version=self.project["version"],
            hasPart=tools,
            step=steps,
        )
        raw = {file.id: file for record in self.records.values() for file in self.raw_data(record)}
        inputs = [("configuration", self.get(CONFIGURATION)), *(("data_set", file) for file in raw.values())]
        results = [self.get(path) for path in sorted(files) if path.startswith("results/")]
        known = {
            "startTime": min(job["startTime"] for job in jobs),
            "endTime": max(job["endTime"] for job in jobs),
            "agent": self.authors,
        }
        run = self.entity(
            "#run",
            "CreateAction",
            name="The run",
            description=f"{len(jobs)} artifacts, and the tables and figures from them",
            instrument=workflow,
            object=[self.argument(workflow, name, entity) for name, entity in inputs],
            result=[self.argument(workflow, OUTPUT, file) for file in results],
            **known,
        )
        engine = self.software("snakemake", version)
        orchestration = {
            "name": "Orchestration of the run",
            "instrument": engine,
            "object": controls,
            "result": run,
        }
        return [
            run,
            self.entity("#orchestration", "OrganizeAction", **orchestration, **known),
            *controls,
            *jobs,
        ]

    def root(self, title: str, mentioned: list[Entity]) -> None:
        """Describe the crate itself."""
        profiles = [
            self.entity(uri, "CreativeWork", name=name, version=Path(uri).name)
            for uri, name in PROFILES.items()
        ]
        licence = self.project["license"]
        root = self.entity(
            self.root_dataset.id,
            "Dataset",
            name=title,
            description=self.project["description"],
            keywords=self.project["keywords"],
            version=self.project["version"],
            license=self.entity(f"https://spdx.org/licenses/{licence}", "CreativeWork", name=licence),
            author=self.authors,
            publisher=self.authors,
            datePublished=self.get("#run")["endTime"],
            citation=self.paper,
            conformsTo=profiles,
            mentions=mentioned,
        )
        self.entity("README.md", "File", about=root)


def _in_order(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the programs in an order in which each comes after those whose artifacts it reads."""
    before: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for record in records.values():
        read = [path for paths in record["inputs"].values() for path in paths if path in records]
        before[record["program"]] |= {records[path]["program"]: None for path in read}
    return list(TopologicalSorter(before).static_order())


def _path(program: str) -> str:
    return f"workflow/{program.replace('.', '/')}.py"
