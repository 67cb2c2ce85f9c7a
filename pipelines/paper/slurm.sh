#!/bin/bash
# The paper's ImageNet run on several machines of a SLURM cluster: sbatch pipelines/paper/slurm.sh ARM
# Adapt the four numbers, the partition and the two paths. The clone and the data lie where every machine sees them.
# batch_size (256) is that of all GPUs together: nodes x GPUs must divide it. A run that is cut off, by a dead machine
# or the time limit, goes on from its last checkpoint when the same line is submitted again.
#SBATCH --job-name=bnc_repro
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue

set -eu
arm=${1:?the arm of pipelines/paper/params.yaml to train, for instance: sbatch pipelines/paper/slurm.sh official}
cd "${CLONE:-$SLURM_SUBMIT_DIR}"
export BNC_DATA=${BNC_DATA:-${SHARDS:?BNC_DATA, the folder that holds imagenet/, or SHARDS, one of its archives}}
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# Each start has a store of its own, or a restarted process may find the addresses of the one before.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

# Where the shared disk is slow with many small files: keep shards there (docs/how-to/own-data.md), unpack them on each
# machine's own disk, and read that.
if [ -n "${SHARDS:-}" ]; then
    export BNC_DATA=${TMPDIR:-/tmp}/bnc_data
    srun --ntasks-per-node=1 bash -c 'mkdir -p "$BNC_DATA/imagenet" && ls "$SHARDS"/*.tar | xargs -P 8 -n 1 tar -C "$BNC_DATA/imagenet" -xf'
fi

srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" .venv/bin/torchrun --nnodes="$SLURM_NNODES" --nproc-per-node=gpu --max-restarts=3 \
    --rdzv-id="$SLURM_JOB_ID" --rdzv-backend=c10d --rdzv-endpoint="$first:29500" \
    -m bnc_repro run imagenet_resnet --profile paper --arm "$arm" --seed all
