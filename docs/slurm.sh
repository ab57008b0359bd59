#!/usr/bin/env bash
# lbk_entry.py under SLURM, on one machine or several. Submit it from the repository's root:
#   sbatch docs/slurm.sh eval --conf_files configs/collavo_step2.yaml --overrides DATASETS.TEST all RESUME_FROM /path/to/CoLLaVO
#SBATCH --job-name=collavo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120
#SBATCH --output=slurm-%x-%j.log
set -euo pipefail

# Activate the environment of `bash install` here, if it is not .venv of this clone.
if [ -f .venv/bin/activate ]; then source .venv/bin/activate; fi

gpus="${SLURM_GPUS_ON_NODE:-1}"
main="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(( (${SLURM_CPUS_PER_TASK:-$gpus} + gpus - 1) / gpus ))}"
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"

# the launcher of each machine finds its rank in SLURM_NODEID, which exists inside srun alone
launch='exec accelerate launch --config_file configs/accel/multi_node_accel.yaml --machine_rank "$SLURM_NODEID" "$@"'
srun --kill-on-bad-exit=1 bash -c "$launch" slurm \
  --num_machines "$SLURM_JOB_NUM_NODES" --num_processes "$(( SLURM_JOB_NUM_NODES * gpus ))" \
  --main_process_ip "$main" --main_process_port "$(( 20000 + SLURM_JOB_ID % 20000 ))" \
  lbk_entry.py "$@"
