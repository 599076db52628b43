"""The workflow's configuration; only rules, benchmarks and commands import it."""
