#!/usr/bin/env bash
# Ten GRPO steps of the fine-tuned tiny policy on the toy world, on the CPU or on GPUs. DEMO_ROOT (outputs/demo) holds what `make demo` makes.
source "$(dirname "$0")/common.sh"
exec "$PYTHON" -m verl.trainer.main config=configs/demo.yaml "$@"
