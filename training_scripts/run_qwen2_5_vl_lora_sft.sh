#!/usr/bin/env bash
# LoRA fine-tuning of Qwen2.5-VL on chain-of-thought records, merged at every checkpoint into <run>/huggingface.
#   MODEL_PATH=/weights/Qwen2.5-VL-3B-Instruct REVOS_ROOT=/data/ReVOS COT_ROOT=/data/cot \
#       bash training_scripts/run_qwen2_5_vl_lora_sft.sh
# CONFIG=configs/sft_qwen2_5_vl_7b_lora.yaml is sized for the 7B model; further arguments are overrides.
source "$(dirname "$0")/common.sh"
exec "$PYTHON" -m verl.trainer.sft config="${CONFIG:-configs/sft_qwen2_5_vl_3b_lora.yaml}" "$@"
