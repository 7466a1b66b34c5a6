#!/usr/bin/env bash
# GRPO of the shipped small policy on the toy world, on one GPU or on the CPU (on two cores a step takes minutes); the published recipe
# but for sizes.
#   python -m veason.toy.world --output outputs/toy/world --train_videos 600 --valid_videos 60
#   bash training_scripts/run_toy_grpo.sh trainer.save_checkpoint_path=checkpoints/toy_grpo
# MODEL_PATH, TOY_TRACKER and TOY_WORLD name other weights and another world; further words override.
source "$(dirname "$0")/common.sh"

SIZES=()
if ! nvidia-smi -L >/dev/null 2>&1; then # on the CPU short rows cost no time and spare memory
    SIZES=(worker.actor.max_tokens_per_micro_batch=4096)
fi

exec "$PYTHON" -m verl.trainer.main config=configs/toy/grpo.yaml "${SIZES[@]}" "$@"
