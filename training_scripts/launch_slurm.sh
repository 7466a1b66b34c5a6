#!/usr/bin/env bash
# A launcher on several hosts of a Slurm cluster: Ray starts on each, the launcher runs on the first.
#   sbatch --nodes 2 --gpus-per-node 8 training_scripts/launch_slurm.sh \
#       training_scripts/run_qwen2_5_7b_revos_keyframe_sam_sft_mod.sh worker.rollout.tensor_parallel_size=1
# --plan among the arguments shows the plan instead, without Slurm or Ray.
#SBATCH --job-name=open-veason-r1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --output=%x-%j.log
source "${SLURM_SUBMIT_DIR:-.}/training_scripts/common.sh"

[ $# -gt 0 ] || {
    echo "usage: sbatch --nodes N --gpus-per-node G training_scripts/launch_slurm.sh LAUNCHER [OVERRIDES]" >&2
    exit 2
}
NODES=${SLURM_JOB_NUM_NODES:-1}
GPUS=${SLURM_GPUS_ON_NODE:-8}
COMMAND=(bash "$1" "trainer.nnodes=$NODES" "trainer.n_gpus_per_node=$GPUS" "${@:2}")
for argument in "$@"; do
    if [ "$argument" = --plan ]; then exec "${COMMAND[@]}"; fi
done

RAY=$(dirname "$(command -v "$PYTHON")")/ray
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
PORT=${RAY_PORT:-6379}
# Without --overlap a step waits until the one before it has given back its resources.
srun --overlap --nodes 1 --ntasks 1 --nodelist "$HEAD" \
    "$RAY" start --head --port "$PORT" --num-gpus "$GPUS" --block &
for ((seconds = 0; seconds < 120; seconds++)); do
    if "$RAY" status --address "$HEAD:$PORT" > /dev/null 2>&1; then break; fi
    sleep 1
done
if [ "$NODES" -gt 1 ]; then
    srun --overlap --nodes $((NODES - 1)) --ntasks $((NODES - 1)) --exclude "$HEAD" \
        "$RAY" start --address "$HEAD:$PORT" --num-gpus "$GPUS" --block &
fi
export RAY_ADDRESS=$HEAD:$PORT
"$PYTHON" - "$NODES" <<'PY' # waits until all hosts are there, and names how many are not
import sys, time
import ray

ray.init(logging_level="ERROR")
deadline, wanted = time.monotonic() + 300, int(sys.argv[1])
while (found := sum(node["Alive"] for node in ray.nodes())) < wanted:
    if time.monotonic() > deadline:
        sys.exit(f"{found} of {wanted} hosts joined Ray within 300 s; look into the log of `ray start` on the others")
    time.sleep(1)
PY
"${COMMAND[@]}"
