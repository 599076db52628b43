"""Export the provenance of the tables as JSON for programs.

It has every cell of the tables with its origin, and the record of every file behind them.
"""

import json
from pathlib import Path

from blindspots.audit.records import Run, export
from blindspots.steps.artifacts import whole_file
from blindspots.steps.step import Step, log, run


def body(step: Step) -> None:
    """Write the JSON file.

    Args:
        step: The run. Its inputs are `tables` and `artifacts`. Its setting is `tables`, the names of the
            tables.
    """
    exported = export(Run(Path.cwd(), str(step.inputs["tables"][0].parent)), step.settings["tables"])
    with whole_file(step.output[0]) as temporary:
        temporary.write_text(json.dumps(exported, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    log.info("wrote %s: %d files", step.output[0], len(exported["files"]))


def main(argv=None) -> int:
    return run(body, "scripts.export_provenance", ("tables", "artifacts"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
