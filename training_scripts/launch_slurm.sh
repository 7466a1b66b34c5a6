#!/usr/bin/env bash
# A launcher on several hosts of a Slurm cluster: Ray starts on each, the launcher runs on the first.
#   ray get-auth-token --generate   # once; ~/.ray/auth_token of each host has to be the same
#   sbatch --nodes 2 --gpus-per-node 8 training_scripts/launch_slurm.sh \
#       training_scripts/run_qwen2_5_7b_revos_keyframe_sam_sft_mod.sh worker.rollout.tensor_parallel_size=1
# ADDRESS is the first host's address as the others see it, RAY_PORT (6379) its port; RAY_AUTH_MODE=disabled asks for no
# token. --plan among the arguments shows the plan instead, without Slurm or Ray. Five minutes before the time limit, or
# at `scancel --batch --signal=TERM`, the run finishes its step, saves and ends.
#SBATCH --job-name=open-veason-r1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --signal=B:TERM@300
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

# Without --overlap a step waits until the one before it has given back its resources.
on() { srun --overlap --nodes "$1" --ntasks "$1" "${@:2}"; } # COUNT WHERE... COMMAND...
mapfile -t HOSTS < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
HEAD=${HOSTS[0]}
ADDRESS=${ADDRESS:-$(on 1 --nodelist "$HEAD" hostname --ip-address | cut -d' ' -f1)}
export RAY_PORT=${RAY_PORT:-6379} RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
on 1 --nodelist "$HEAD" bash training_scripts/ray_node.sh head "$ADDRESS" --num-gpus="$GPUS" &
STARTED=("$HEAD=$!")
if [ "$NODES" -gt 1 ]; then
    on $((NODES - 1)) --exclude "$HEAD" bash training_scripts/ray_node.sh worker "$ADDRESS" --num-gpus="$GPUS" &
    STARTED+=("the other hosts=$!")
fi
export RAY_ADDRESS=$ADDRESS:$RAY_PORT
"$PYTHON" -m training_scripts.wait_for_hosts "$NODES" "${STARTED[@]}"

"${COMMAND[@]}" &
run=$!
trap 'kill -TERM $run' TERM # to the driver alone: without Ray nothing could be saved
status=0
wait $run || status=$?
while kill -0 $run 2> /dev/null; do # a signal has ended the wait, not the run
    status=0
    wait $run || status=$?
done
exit $status
