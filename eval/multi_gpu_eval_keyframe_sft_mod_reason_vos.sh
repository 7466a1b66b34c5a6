#!/usr/bin/env bash
# Evaluates a checkpoint on ReasonVOS with one worker per GPU, all fed from one queue. From the project's root:
#
#   SAM2_CHECKPOINT=sam2.1_hiera_large.pt bash multi_gpu_eval_keyframe_sft_mod_reason_vos.sh \
#       --reasoning_model_path CHECKPOINT --data_path ReasonVOS --output_path outputs/reasonvos
#
# Variables: GPU_IDS ("0 1"; all GPUs by default), SAM2_CHECKPOINT, SAM2_CONFIG, and REASONING_MODEL_PATH, DATA_PATH and
# OUTPUT_PATH in place of the three flags. Options of eval.evaluate may follow, such as benchmark=revos temperature=0.7.
source "$(dirname "$(readlink -f "$0")")/../training_scripts/common.sh"

if [ -n "${GPU_IDS:-}" ]; then export CUDA_VISIBLE_DEVICES=${GPU_IDS// /,}; fi
[ -z "${SPLIT:-}${SPLIT_NUM:-}" ] || echo "SPLIT and SPLIT_NUM have no effect: the workers share one queue" >&2
exec "$PYTHON" -m eval.evaluate benchmark=reasonvos ${SAM2_CONFIG:+"sam2_config=$SAM2_CONFIG"} \
    ${REASONING_MODEL_PATH:+"model_path=$REASONING_MODEL_PATH"} ${DATA_PATH:+"data_path=$DATA_PATH"} \
    ${OUTPUT_PATH:+"output_path=$OUTPUT_PATH"} "$@"
