#!/usr/bin/env bash
# Snakemake runs a job again when its parameters change, but a parameter whose function also takes `input` (or `output`,
# `threads`, `resources`) is left out of that comparison, even where its value comes from the configuration alone.
#
# Expected: with another value in the configuration both jobs run again.
# Seen with snakemake 9.27.1: only the one whose function takes nothing but `wildcards`; the other file keeps the former value
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet snakemake==9.27.1
mkdir "$folder/run"
cd "$folder/run"
cat > Snakefile <<'SNAKEFILE'
rule all:
    input: "plain.txt", "with_input.txt"
rule plain:
    output: "plain.txt"
    params: value=lambda wildcards: config["value"]
    shell: "echo {params.value} > {output}"
rule with_input:
    output: "with_input.txt"
    params: value=lambda wildcards, input: config["value"]
    shell: "echo {params.value} > {output}"
SNAKEFILE
for value in 1 2; do
    PATH="$folder/venv/bin:$PATH" snakemake --cores 1 --quiet all --config "value=$value" > /dev/null 2>&1
done
echo "snakemake $("$folder/venv/bin/snakemake" --version): plain $(cat plain.txt), with input $(cat with_input.txt)"
test "$(cat plain.txt)" = 2
test "$(cat with_input.txt)" = 1
