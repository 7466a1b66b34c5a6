#!/usr/bin/env bash
# The toy experiment for a model family: a policy from random weights (run_toy_sft.sh), GRPO and its control from it
# with three seeds, evaluations, and the rows of docs/toy_results.md.
#   MODEL_TYPE=qwen3_vl bash training_scripts/run_toy_experiments.sh
# Works in TOY_ROOT (outputs/toy_MODEL_TYPE); what is there already is not made again, so the same command resumes.
# Meant for one GPU: JOBS (6) trainings share it. A small run for two cores:
#   MODEL_TYPE=qwen3_vl TOY_ROOT=outputs/small PAGE=page.md STEPS=2 SFT_STEPS=1 GRPO_STEPS=1 VALID_VIDEOS=2 \
#       TRAIN_VIDEOS=2 RUNS=grpo SEEDS=0 LIMIT=2 JOBS=1 bash training_scripts/run_toy_experiments.sh
# PAGE is the page that is written; it needs the blocks "MODEL_TYPE scores" and so on. Arguments override all trainings.
source "$(dirname "$0")/common.sh"

export MODEL_TYPE=${MODEL_TYPE:?give the model family, such as qwen3_vl}
export TOY_ROOT=${TOY_ROOT:-outputs/toy_$MODEL_TYPE}
export POLICY_OUT=$TOY_ROOT/toy_policy
CORES=${CORES:-$(nproc)}
DEVICE_OVERRIDES=()
if ! nvidia-smi -L >/dev/null 2>&1; then # on the CPU small micro-batches cost no time and save memory
    DEVICE_OVERRIDES=(worker.actor.max_tokens_per_micro_batch=4096)
fi

if [ ! -f "$POLICY_OUT/README.md" ]; then # the last file of run_toy_sft.sh
    SFT_ARGUMENTS="$*" bash "$(dirname "$0")/run_toy_sft.sh" "$@"
fi
if [ ! -d "$TOY_ROOT/grpo_world/ReVOS" ]; then # neither its training nor its valid videos were in the SFT
    "$PYTHON" -m veason.toy.world --output "$TOY_ROOT/grpo_world" --seed 1 --train_videos "${TRAIN_VIDEOS:-600}" \
        --valid_videos "${VALID_VIDEOS:-60}" --reasonvos_videos 1 --queries 8 --workers "$CORES"
fi
"$PYTHON" -m training_scripts.toy.experiments --policy "$POLICY_OUT" --tracker "${TOY_TRACKER:-weights/toy_tracker}" \
    --world "$TOY_ROOT/grpo_world" --output "$TOY_ROOT/runs" --runs "${RUNS:-grpo,control}" --seeds "${SEEDS:-0,1,2}" \
    --steps "${GRPO_STEPS:-36}" --limit "${LIMIT:-300}" --jobs "${JOBS:-6}" "${DEVICE_OVERRIDES[@]}" "$@"
"$PYTHON" -m training_scripts.toy.results --runs "$TOY_ROOT/runs" --page "${PAGE:-docs/toy_results.md}" \
    --prefix "$MODEL_TYPE"
