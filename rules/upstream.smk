# Needs: all rules. Makes: one more parameter of each of them, the hash of what its inputs are to be made with.
#
# Where an input is missing, Snakemake takes what was made from it for up to date, whatever the settings of that input's own
# job are by now. So a job that failed after a change, and whose earlier output is therefore gone, would leave tables of the
# earlier settings that count as finished. With this parameter they do not, as Snakemake compares parameters.

PLANNED = {}


def upstream(made):
    """A parameter of a rule: the hash of the parameters of all jobs, and of all other files, that its inputs come from."""

    def of(wildcards):
        job = planned(made, wildcards)
        makers = {path: maker for maker, paths in workflow.dag.dependencies[job].items() for path in paths}
        parts = []
        for path in job.input:
            if path in makers:
                parts.append([path, *map(str, makers[path].non_derived_params)])
            else:
                parts.append([path, sha256(Path(path).read_bytes()).hexdigest()])
        return sha256(json.dumps(parts).encode()).hexdigest()

    return of


def planned(made, wildcards):
    """The job of a rule with these wildcards."""
    if (made, tuple(wildcards)) not in PLANNED:
        PLANNED.update({(job.rule, tuple(job.wildcards)): job for job in workflow.dag.jobs})
    return PLANNED[made, tuple(wildcards)]


for made in workflow.rules:
    if (
        Path(made.snakefile).is_relative_to(PROJECT) and "upstream" not in made.params.keys()
    ):  # as a module, beside others
        made.set_params(upstream=upstream(made))
