#!/usr/bin/env bash
# Where a parameter of an intermediate job changes and that job fails, Snakemake has deleted its former output by then, and with it
# the record of the former parameter: the same command then takes the final file, made with that one, for up to date.
#
# Expected: after a failure the same command goes on to a final file with the new value.
# Seen with snakemake 9.27.1: exit status 1, and then 'Nothing to be done' with exit status 0; the final file has the former
# value 1, not 2, and the intermediate file is gone
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet snakemake==9.27.1
mkdir "$folder/run"
cd "$folder/run"
cat > Snakefile <<'SNAKEFILE'
rule final:
    input: "made.txt"
    output: "final.txt"
    shell: "cp {input} {output}"

rule made:
    output: "made.txt"
    params: value=config["value"]
    shell: 'test ! -e broken && echo {params.value} > {output}'
SNAKEFILE
make_with() {
    PATH="$folder/venv/bin:$PATH" snakemake --cores 1 final.txt --config "value=$1" 2>&1
}
make_with 1 > /dev/null
touch broken
status=0
make_with 2 > failed || status=$?
rm broken
said=$(make_with 2)
echo "snakemake $("$folder/venv/bin/snakemake" --version): exit status $status, then: $(grep -o 'Nothing to be done' <<< "$said"), with $(cat final.txt)"
test "$status" = 1
grep -q "Nothing to be done" <<< "$said"
test "$(cat final.txt)" = 1
test ! -e made.txt
