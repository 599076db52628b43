#!/usr/bin/env bash
# Where a job whose output is marked update() fails, Snakemake puts the former file back, and records it as made with the new
# parameters: the same command then says that nothing is to be done.
#
# Expected: a job that failed is tried again by the same command.
# Seen with snakemake 9.27.1: exit status 1, 'Restored previous version' and then 'Nothing to be done'; the file has the
# former value 1, not 2
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet snakemake==9.27.1
mkdir "$folder/run"
cd "$folder/run"
cat > Snakefile <<'SNAKEFILE'
rule made:
    output: update("made.txt")
    params: value=config["value"]
    shell: 'test ! -e broken && echo {params.value} > {output}'
SNAKEFILE
make_with() {
    PATH="$folder/venv/bin:$PATH" snakemake --cores 1 made.txt --config "value=$1" 2>&1
}
make_with 1 > /dev/null
touch broken
status=0
make_with 2 > failed || status=$?
rm broken
said=$(make_with 2)
echo "snakemake $("$folder/venv/bin/snakemake" --version): exit status $status, then: $(grep -o 'Nothing to be done' <<< "$said"), with $(cat made.txt)"
test "$status" = 1
grep -q "Restored previous version" failed
grep -q "Nothing to be done" <<< "$said"
test "$(cat made.txt)" = 1
