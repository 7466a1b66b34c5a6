#!/usr/bin/env bash
# Fine-tunes the tiny policy on the toy teacher's records, on the CPU or one GPU. DEMO_ROOT (outputs/demo) holds what `make demo` makes.
source "$(dirname "$0")/common.sh"
exec "$PYTHON" -m verl.trainer.sft config=configs/sft_demo.yaml "$@"
