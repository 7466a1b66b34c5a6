#!/usr/bin/env bash
# Ray on one host of a run on several hosts, until it is ended (docs/multi_node.md); launch_slurm.sh and launch_ssh.sh
# start it on each.
#   first host:   bash training_scripts/ray_node.sh head 10.0.0.1
#   others:       bash training_scripts/ray_node.sh worker 10.0.0.1
#   the run, on the first host:
#                 RAY_ADDRESS=10.0.0.1:6379 RAY_AUTH_MODE=token bash training_scripts/run_....sh trainer.nnodes=2
# The address is the first host's, in the network that the hosts share. NODE_IP is this host's own address where it has
# several; RAY_PORT (6379) is the first host's port. RAY_AUTH_MODE=disabled asks for no token. Further arguments go to
# `ray start`.
source "$(dirname "$0")/common.sh"

role=$1 head=$2
shift 2
port=${RAY_PORT:-6379}
# all hosts and the run need the same token
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
token=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
if [ "$RAY_AUTH_MODE" = token ] && [ -z "${RAY_AUTH_TOKEN:-}" ] && [ ! -s "$token" ]; then
    echo "$(hostname): no token in $token: run \`ray get-auth-token --generate\` on one host, and copy it to each" >&2
    exit 2
fi
# a host that is cut off is given up within 30 s on both sides, instead of minutes
export RAY_health_check_initial_delay_ms=${RAY_health_check_initial_delay_ms:-5000}
export RAY_health_check_period_ms=${RAY_health_check_period_ms:-2000}
export RAY_health_check_timeout_ms=${RAY_health_check_timeout_ms:-5000}
export RAY_health_check_failure_threshold=${RAY_health_check_failure_threshold:-4}
export RAY_gcs_rpc_server_reconnect_timeout_s=${RAY_gcs_rpc_server_reconnect_timeout_s:-25}

if [ "$role" = head ]; then
    place=(--head --node-ip-address="${NODE_IP:-$head}" --port="$port" --include-dashboard=false)
else
    place=(--address="$head:$port" ${NODE_IP:+--node-ip-address="$NODE_IP"})
fi
exec "$PYTHON" -m ray.scripts.scripts start "${place[@]}" --disable-usage-stats --block "$@"
