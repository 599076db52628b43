#!/usr/bin/env bash
# A Slurm cluster of its own on this machine, for tests and benchmarks: two nodes with two GPUs each, by name.
#   slurm.sh start FOLDER [CPUS]   then: . FOLDER/env.sh      (CPUS of a node, 2 by itself)
#   slurm.sh stop FOLDER
# Needs root and Debian's slurmctld, slurmd, slurm-client, munge. All that it makes is in the folder.
set -euo pipefail
folder=$(realpath -m "$2")
export SLURM_CONF=$folder/etc/slurm.conf

configure() {
    mkdir -p "$folder"/{bin,etc,log,run,spool,state}
    dd if=/dev/urandom of="$folder/etc/munge.key" bs=1024 count=1 status=none
    chmod 600 "$folder/etc/munge.key"
    for gpu in 0 1; do mknod "$folder/run/gpu$gpu" c 1 3; done # a GPU has to be a character device: these are /dev/null
    echo "NodeName=n[1-2] Name=gpu File=$folder/run/gpu[0-1]" > "$folder/etc/gres.conf"
    echo "CgroupAutomount=no" > "$folder/etc/cgroup.conf"
    local port=$((20000 + RANDOM % 10000))
    cat > "$SLURM_CONF" << CONF
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$port
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdPidFile=$folder/run/slurmd.%n.pid
SlurmdLogFile=$folder/log/slurmd.%n.log
SlurmdSpoolDir=$folder/spool/%n
SlurmdParameters=config_overrides
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$folder/state
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket=$folder/run/munge.socket
# No accounting: the profile's status command is squeue then, which has to remember finished jobs.
AccountingStorageType=accounting_storage/none
MinJobAge=3600
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/log/jobs
# No cgroups in a container: what takes more memory than it asked for is killed by the gatherer, each second.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill,UsePss
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
ReturnToService=2
KillWait=2
SlurmdTimeout=30
NodeName=n[1-2] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + 2))] CPUs=${1:-2} RealMemory=10000 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    # Jobs lose SLURM_CONF before their inner srun, which on a real cluster finds /etc/slurm.
    printf '#!/bin/sh\nexport SLURM_CONF=%s\nexec /usr/bin/srun "$@"\n' "$SLURM_CONF" > "$folder/bin/srun"
    chmod 755 "$folder/bin/srun"
    printf 'export SLURM_CONF=%s PATH=%s:$PATH\n' "$SLURM_CONF" "$folder/bin" > "$folder/env.sh"
}

start() {
    configure "$@"
    munged --force --key-file="$folder/etc/munge.key" --socket="$folder/run/munge.socket" \
        --pid-file="$folder/run/munged.pid" --log-file="$folder/log/munged.log" --seed-file="$folder/run/munged.seed"
    slurmctld
    for node in n1 n2; do slurmd -N "$node"; done
    for _ in $(seq 200); do
        [ "$(sinfo --noheader --Node --format %t 2> /dev/null | grep -c '^idle$')" = 2 ] && return
        sleep .1
    done
    echo "the nodes are not idle after 20 s, see $folder/log" >&2
    exit 1
}

stop() {
    scancel --user root 2> /dev/null || true
    for file in "$folder"/run/{slurmd.n1,slurmd.n2,slurmctld,munged}.pid; do
        [ -s "$file" ] || continue
        pid=$(cat "$file")
        kill "$pid" 2> /dev/null || true
        for _ in $(seq 100); do
            kill -0 "$pid" 2> /dev/null || break
            sleep .1
        done
    done
}

"$1" "${@:3}"
