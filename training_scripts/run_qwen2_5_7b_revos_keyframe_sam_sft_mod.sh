#!/usr/bin/env bash
# GRPO of a fine-tuned Qwen2.5-VL-7B on four GPUs.
#   MODEL_PATH=/weights/sft REVOS_ROOT=/data/ReVOS SAM2_CHECKPOINT=/weights/sam2.1_hiera_large.pt \
#       bash training_scripts/run_qwen2_5_7b_revos_keyframe_sam_sft_mod.sh
# Further arguments are overrides: trainer.max_steps=10 trainer.save_checkpoint_path=/checkpoints/run
source "$(dirname "$0")/common.sh"

RUN_NAME=$(basename "$0" .sh)

exec "$PYTHON" -m verl.trainer.main \
    config=training_scripts/video_seg_zero_3b_keyframe_sam_sft_mod.yaml \
    worker.actor.kl_loss_coef=5.0e-3 \
    worker.actor.optim.lr=1.0e-6 \
    worker.actor.micro_batch_size_per_device_for_update=1 \
    worker.actor.micro_batch_size_per_device_for_experience=1 \
    worker.rollout.enable_chunked_prefill=false \
    worker.rollout.tensor_parallel_size=4 \
    worker.rollout.n=8 \
    trainer.experiment_name="${RUN_NAME}" \
    trainer.n_gpus_per_node=4 \
    trainer.total_episodes=1 \
    trainer.save_checkpoint_path="${SAVE_PATH:-checkpoints/${RUN_NAME}}" \
    "$@"
