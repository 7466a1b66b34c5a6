#!/usr/bin/env bash
# Evaluates a checkpoint on ReasonVOS with one worker a GPU, all fed from one queue. From the project's root:
#
#   SAM2_CHECKPOINT=sam2.1_hiera_large.pt bash multi_gpu_eval_keyframe_sft_mod_reason_vos.sh \
#       --reasoning_model_path CHECKPOINT --data_path ReasonVOS --output_path outputs/reasonvos
#
# Variables: GPU_IDS ("0 1"; all GPUs by default), SAM2_CHECKPOINT, SAM2_CONFIG, and REASONING_MODEL_PATH, DATA_PATH and OUTPUT_PATH
# in place of the three flags. Any `key=value` of eval.evaluate may follow, for example benchmark=revos temperature=0.7.
source "$(dirname "$(readlink -f "$0")")/../training_scripts/common.sh"

words=()
while [ $# -gt 0 ]; do
    case "$1" in
        --reasoning_model_path=* | --data_path=* | --output_path=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    esac
    case "$1" in
        --reasoning_model_path | --data_path | --output_path) [ $# -gt 1 ] || { echo "$1 needs a value" >&2; exit 2; } ;;&
        --reasoning_model_path) REASONING_MODEL_PATH=$2; shift 2 ;;
        --data_path) DATA_PATH=$2; shift 2 ;;
        --output_path) OUTPUT_PATH=$2; shift 2 ;;
        *=*) words+=("$1"); shift ;;
        *) echo "unknown argument $1; the flags are --reasoning_model_path, --data_path, --output_path, then key=value" >&2; exit 2 ;;
    esac
done
missing=()
for flag in reasoning_model_path data_path output_path; do
    variable=${flag^^}
    [ -n "${!variable:-}" ] || missing+=("--$flag (or $variable)")
done
[ ${#missing[@]} -eq 0 ] || { echo "missing: ${missing[*]}" >&2; exit 2; }

if [ -n "${GPU_IDS:-}" ]; then export CUDA_VISIBLE_DEVICES=${GPU_IDS// /,}; fi
[ -z "${SPLIT:-}${SPLIT_NUM:-}" ] || echo "SPLIT and SPLIT_NUM have no effect: the workers share one queue" >&2
exec "$PYTHON" -m eval.evaluate benchmark=reasonvos "model_path=$REASONING_MODEL_PATH" "data_path=$DATA_PATH" "output_path=$OUTPUT_PATH" \
    ${SAM2_CONFIG:+"sam2_config=$SAM2_CONFIG"} ${SAM2_CHECKPOINT:+"sam2_checkpoint=$SAM2_CHECKPOINT"} "${words[@]}"
