"""The workflow's configuration. Only rules, benchmarks and command-line tools import it."""
