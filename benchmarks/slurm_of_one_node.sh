#!/bin/bash
# Does a sweep work on a real SLURM? Starts one of a single node on loopback, submits the sample's ablation, ends it.
# Needs root and Debian's packages: apt-get install slurm-wlm munge. In the clone, its environment active:
#   bash benchmarks/slurm_of_one_node.sh [words for sweep, for instance --set epochs=1 --runs FOLDER]
# Without a time limit of its own; the cluster's files are in a temporary folder, nothing of the machine's is changed.
set -eu
folder=$(mktemp -d)
name=$(hostname -s)
export SLURM_CONF=$folder/slurm.conf
mkdir -p "$folder/state" "$folder/spool"
chmod 755 "$folder"

cat > "$SLURM_CONF" <<END
ClusterName=one
SlurmctldHost=$name(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ReturnToService=2
MpiDefault=none
NodeName=$name NodeAddr=127.0.0.1 CPUs=$(nproc)
PartitionName=one Nodes=$name Default=YES MaxTime=INFINITE State=UP
END

ended() {
    scancel --name bnc_repro || true
    for daemon in slurmd slurmctld munged; do
        [ ! -f "$folder/$daemon.pid" ] || kill "$(cat "$folder/$daemon.pid")" || true
    done
    echo "logs of the daemons: $folder"
}
trap ended EXIT

head -c 1024 /dev/urandom > "$folder/munge.key"
chmod 400 "$folder/munge.key"
munged --force --socket="$folder/munge.socket" --key-file="$folder/munge.key" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"
slurmctld -c
slurmd
for _ in $(seq 30); do
    sinfo --noheader --format=%T | grep -q idle && break
    sleep 1
done
sinfo
python -m bnc_repro sweep linear_vs_soft --engine slurm --slurm partition=one --slurm time=60 "$@"
