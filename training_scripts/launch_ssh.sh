#!/usr/bin/env bash
# A launcher on several hosts that are reached by SSH, this one and those of HOSTS ("node2 node3"). The repository and its
# .venv lie under the same path on each, or on a shared disk.
#   HOSTS=node2 GPUS=8 bash training_scripts/launch_ssh.sh \
#       training_scripts/run_qwen2_5_7b_revos_keyframe_sam_sft_mod.sh worker.rollout.tensor_parallel_size=1
# ADDRESS is this host's address as the others see it. --plan among the arguments shows the plan instead, without SSH.
source "$(dirname "$0")/common.sh"

[ $# -gt 0 ] && [ -n "${HOSTS:-}" ] || {
    echo "usage: HOSTS=\"node2 node3\" bash training_scripts/launch_ssh.sh LAUNCHER [OVERRIDES]" >&2
    exit 2
}
read -ra OTHERS <<< "$HOSTS"
GPUS=${GPUS:-8}
COMMAND=(bash "$1" "trainer.nnodes=$((${#OTHERS[@]} + 1))" "trainer.n_gpus_per_node=$GPUS" "${@:2}")
for argument in "$@"; do
    if [ "$argument" = --plan ]; then exec "${COMMAND[@]}"; fi
done

RAY=$(dirname "$(command -v "$PYTHON")")/ray
case $RAY in /*) ;; *) RAY=$PWD/$RAY ;; esac
ADDRESS=${ADDRESS:-$(hostname -I | cut -d' ' -f1)}
PORT=${RAY_PORT:-6379}
stop() {
    for host in "${OTHERS[@]}"; do ssh "$host" "$RAY" stop || true; done
    "$RAY" stop
}
trap stop EXIT
"$RAY" start --head --port "$PORT" --num-gpus "$GPUS"
for host in "${OTHERS[@]}"; do
    # shellcheck disable=SC2029  # the paths are those of this host
    ssh "$host" "cd '$PWD' && '$RAY' start --address '$ADDRESS:$PORT' --num-gpus '$GPUS'" || {
        echo "$host did not join Ray at $ADDRESS:$PORT: see the lines above" >&2
        exit 1
    }
done
export RAY_ADDRESS=$ADDRESS:$PORT
"${COMMAND[@]}"
