"""Every cell of the tables with its origin, and the record of every file behind them, as JSON for programs."""

import json
from pathlib import Path

from blindspots.audit.records import Run, export
from blindspots.steps.artifacts import whole_file
from blindspots.steps.step import Step, log, run


def body(step: Step) -> None:
    exported = export(Run(Path.cwd(), str(step.inputs["tables"][0].parent)), step.settings["tables"])
    with whole_file(step.output[0]) as temporary:
        temporary.write_text(json.dumps(exported, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    log.info("wrote %s: %d files", step.output[0], len(exported["files"]))


def main(argv=None) -> int:
    return run(body, "scripts.export_provenance", ("tables", "artifacts"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
