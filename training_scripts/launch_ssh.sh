#!/usr/bin/env bash
# A launcher on several hosts reached by SSH, this one and those of HOSTS ("node2 node3"). The repository and its
# .venv lie under the same path on each, or on a shared disk.
#   ray get-auth-token --generate   # once; ~/.ray/auth_token of each host has to be the same
#   HOSTS=node2 GPUS=8 bash training_scripts/launch_ssh.sh \
#       training_scripts/run_qwen2_5_7b_revos_keyframe_sam_sft_mod.sh worker.rollout.tensor_parallel_size=1
# ADDRESS is this host's address as the others see it, RAY_PORT (6379) its port; RAY_AUTH_MODE=disabled needs no token.
# --plan among the arguments shows the plan instead, without SSH.
source "$(dirname "$0")/common.sh"

[ $# -gt 0 ] && [ -n "${HOSTS:-}" ] || {
    echo "usage: HOSTS=\"node2 node3\" bash training_scripts/launch_ssh.sh LAUNCHER [OVERRIDES]" >&2
    exit 2
}
read -ra OTHERS <<< "$HOSTS"
NODES=$((${#OTHERS[@]} + 1))
GPUS=${GPUS:-8}
COMMAND=(bash "$1" "trainer.nnodes=$NODES" "trainer.n_gpus_per_node=$GPUS" "${@:2}")
for argument in "$@"; do
    if [ "$argument" = --plan ]; then exec "${COMMAND[@]}"; fi
done

ADDRESS=${ADDRESS:-$(hostname -I | cut -d' ' -f1)}
export RAY_PORT=${RAY_PORT:-6379} RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
ENVIRONMENT=(env "PYTHON=$PYTHON" "RAY_PORT=$RAY_PORT" "RAY_AUTH_MODE=$RAY_AUTH_MODE")
[ -z "${RAY_AUTH_TOKEN_PATH:-}" ] || ENVIRONMENT+=("RAY_AUTH_TOKEN_PATH=$RAY_AUTH_TOKEN_PATH")
on() { # HOST COMMAND...: in the same folder; a host that is cut off is given up after 30 s
    ssh -n -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=5 -o ServerAliveCountMax=6 "$1" \
        "cd $(printf %q "$PWD") && $(printf '%q ' "${ENVIRONMENT[@]}" "${@:2}")"
}
stop() {
    for host in "${OTHERS[@]}"; do on "$host" "$PYTHON" -m ray.scripts.scripts stop || true; done
    "$PYTHON" -m ray.scripts.scripts stop
    wait
}
bash training_scripts/ray_node.sh head "$ADDRESS" --num-gpus="$GPUS" &
STARTED=("this host=$!")
trap stop EXIT
for host in "${OTHERS[@]}"; do
    on "$host" bash training_scripts/ray_node.sh worker "$ADDRESS" --num-gpus="$GPUS" &
    STARTED+=("$host=$!")
done
export RAY_ADDRESS=$ADDRESS:$RAY_PORT
"$PYTHON" -m training_scripts.wait_for_hosts "$NODES" "${STARTED[@]}"
"${COMMAND[@]}"
