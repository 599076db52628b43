"""Test the paper's claims about adversarial examples against our numbers.

Each claim is listed with our numbers, a test and its verdict.
"""

import pandas as pd

from blindspots.report import tables
from blindspots.report.claims import findings
from blindspots.steps.artifacts import whole_file
from blindspots.steps.step import Step, log, run


def body(step: Step) -> None:
    """Write the claims as a Markdown table.

    Args:
        step: The run. Its input is `cells`, the cell files of the tables.
    """
    cells = pd.concat([tables.read(path) for path in step.inputs["cells"]])
    lines = [
        "# The paper's claims",
        "",
        "| claim | our numbers | test | verdict |",
        "| --- | --- | --- | --- |",
        *(f"| {statement} | {' | '.join(finding)} |" for statement, finding in findings(cells).items()),
        "",
        "Rates are shares of images; 'higher' is by Fisher's one-sided test at the 1 % level, "
        "divided by the number of comparisons. "
        "`results/*.cells.csv` have every number with its interval and its array.",
        "",
    ]
    with whole_file(step.output[0]) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
    log.info("wrote %s", step.output[0])


def main(argv=None) -> int:
    return run(body, "scripts.judge_claims", ("cells",), argv)


if __name__ == "__main__":
    raise SystemExit(main())
