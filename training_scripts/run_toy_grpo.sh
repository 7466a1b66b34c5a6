#!/usr/bin/env bash
# GRPO of the shipped toy policy on the toy world, on one GPU or on the CPU (minutes per step on two cores): the
# published recipe with other sizes.
#   python -m veason.toy.world --output outputs/toy/world --train_videos 600 --valid_videos 60
#   bash training_scripts/run_toy_grpo.sh trainer.save_checkpoint_path=checkpoints/toy_grpo
# MODEL_PATH, TOY_TRACKER and TOY_WORLD replace the weights and the data set; further arguments are overrides.
source "$(dirname "$0")/common.sh"

DEVICE_OVERRIDES=()
if ! nvidia-smi -L >/dev/null 2>&1; then # on the CPU small micro-batches cost no time and save memory
    DEVICE_OVERRIDES=(worker.actor.max_tokens_per_micro_batch=4096)
fi

exec "$PYTHON" -m verl.trainer.main config=configs/toy/grpo.yaml "${DEVICE_OVERRIDES[@]}" "$@"
