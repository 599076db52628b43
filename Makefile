# make table4: Tables 3 and 4 on all of MNIST.   make test: the tests.   Both set up .venv first.

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
WORKERS = $(shell $(PYTHON) -c 'import os; print(os.cpu_count() + 1)') # one more than cores, as the cluster's tests mostly wait

.PHONY: table4 all report small test lint format clean

table4: .venv/ready
	snakemake --cores all results/table3.csv results/table4.csv
	@echo "Read results/table3.md and results/table4.md, or open results/table3.html and results/table4.html."

all: .venv/ready
	snakemake --cores all

report: all
	snakemake --report results/report.html
	@echo "Open results/report.html."

small: .venv/ready
	snakemake --cores all --configfile config/small.yaml --directory results/small
	@echo "Read results/small/results/table3.md and table4.md."

test: .venv/ready lint
	pytest --numprocesses $(WORKERS) --dist worksteal

lint: .venv/ready
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	codespell

format: .venv/ready
	ruff check --fix .
	ruff format .
	snakefmt Snakefile rules

# Ranges stand in pyproject.toml, exact pins in envs/constraints.txt; a change in either renews the environment.
.venv/ready: pyproject.toml envs/constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint envs/constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf .venv results/small
