#!/usr/bin/env bash
# Trains the toy policy from random weights to the shipped folder: pre-training (configs/toy/pretrain.yaml), SFT on a
# noisy teacher's answers (configs/toy/sft.yaml), evaluation, model card. Training videos are rendered on the fly.
#   bash training_scripts/run_toy_sft.sh
# Works in TOY_ROOT (outputs/toy) and writes the policy to POLICY_OUT (TOY_ROOT/toy_policy). Meant for one GPU and many
# cores, which render the videos: 0.25 s a step with 16 of them. A small run for two cores:
#   VALID_VIDEOS=4 STEPS=4 SFT_STEPS=2 bash training_scripts/run_toy_sft.sh
# MODEL_TYPE=qwen3_vl trains a Qwen3-VL of about the same size, on frames of as many tokens.
# PRETRAIN_SECONDS stops pre-training, at its last checkpoint; the same command continues from there. START is a policy to start from.
# Further arguments override configs/toy/pretrain.yaml, the words of SFT_ARGUMENTS configs/toy/sft.yaml.
source "$(dirname "$0")/common.sh"
COMMAND=""
for name in MODEL_TYPE START STEPS PRETRAIN_SECONDS SFT_STEPS; do COMMAND+="${!name:+$name=${!name} }"; done
COMMAND+="bash training_scripts/run_toy_sft.sh${*:+ $*}"

export TOY_ROOT=${TOY_ROOT:-outputs/toy}
POLICY_OUT=${POLICY_OUT:-$TOY_ROOT/toy_policy}
TRACKER=${TOY_TRACKER:-weights/toy_tracker}
CORES=${CORES:-$(nproc)}
STEPS=${STEPS:-2250}
PROMPT='Find "{expression}".' # data.prompt_template of configs/toy/pretrain.yaml
MODEL_TYPE=${MODEL_TYPE:-qwen2_5_vl}
case $MODEL_TYPE in # the side of a frame of 16 tokens, the longest answers, and what the families do not share
qwen2_5_vl) SIDE=112 TOKENS=384 SIZES=(--intermediate_size 704 --vision_depth 4 --rope_sections 2 4 26) ;;
# its heads are twice as wide, and its coordinates have a digit more
qwen3_vl) SIDE=128 TOKENS=512 SIZES=(--intermediate_size 448 --vision_depth 3) ;;
*) echo "run_toy_sft.sh: MODEL_TYPE=$MODEL_TYPE is neither qwen2_5_vl nor qwen3_vl" >&2 && exit 2 ;;
esac
read -ra SFT_OVERRIDES <<<"${SFT_ARGUMENTS:-}"
DEVICE_OVERRIDES=()
if nvidia-smi -L >/dev/null 2>&1; then
    DEVICE_OVERRIDES=("sft.num_workers=$((CORES > 4 ? CORES - 2 : 2))")
else # on the CPU small micro-batches cost no time and save memory
    DEVICE_OVERRIDES=(worker.actor.max_tokens_per_micro_batch=4096)
fi

stage() { echo "=== $1 (${SECONDS} s)"; }

stage "toy world for the evaluation"
if [ ! -d "$TOY_ROOT/world/ReVOS" ]; then
    "$PYTHON" -m veason.toy.world --output "$TOY_ROOT/world" --workers "$CORES" --queries 6 --train_videos 1 \
        --valid_videos "${VALID_VIDEOS:-32}" --reasonvos_videos 1
fi

stage "random weights"
"$PYTHON" -m veason.toy.tiny_policy --output "$TOY_ROOT/policy" --seed "${SEED:-0}" --model_type "$MODEL_TYPE" \
    --hidden_size 256 --layers 5 --heads 4 --kv_heads 2 --vision_hidden_size 192 --vision_heads 6 \
    --vision_intermediate_size 512 --rope_theta 1000 --initializer_range 0.06 "${SIZES[@]}" 2>/dev/null

stage "pre-training"
timeout "${PRETRAIN_SECONDS:-100000}" "$PYTHON" -m verl.trainer.sft config=configs/toy/pretrain.yaml \
    "trainer.max_steps=$STEPS" trainer.resume_mode=auto \
    "data.keyframe_resize=$SIDE" "data.max_response_length=$TOKENS" \
    ${START:+"worker.actor.model.model_path=$START"} "${DEVICE_OVERRIDES[@]}" "$@" ||
    [ $? = 124 ] # the time limit: continue with the last checkpoint

stage "SFT"
"$PYTHON" -m verl.trainer.sft config=configs/toy/sft.yaml "trainer.max_steps=${SFT_STEPS:-60}" trainer.resume_mode=auto \
    "data.keyframe_resize=$SIDE" "data.max_response_length=$TOKENS" "${DEVICE_OVERRIDES[@]}" "${SFT_OVERRIDES[@]}"

stage "export"
"$PYTHON" -m training_scripts.toy.policy_card export --runs "$TOY_ROOT/sft" --output "$POLICY_OUT"

stage "evaluation"
"$PYTHON" -m eval.evaluate benchmark=revos "data_path=$TOY_ROOT/world/ReVOS" "model_path=$POLICY_OUT" \
    "output_path=$TOY_ROOT/eval" "sam2_config=$TRACKER/sam2_tiny.yaml" \
    "sam2_checkpoint=$TRACKER/sam2_tiny.safetensors" "keyframe_resize=$SIDE" sampled_frames=5 \
    max_prompt_length=512 "max_response_length=$TOKENS" "prompt_template=$PROMPT" \
    gpu_memory_utilization=0.05 kv_cache_gib=1 enforce_eager=true

stage "model card"
"$PYTHON" -m training_scripts.toy.policy_card card --runs "$TOY_ROOT/pretrain" "$TOY_ROOT/sft" --output "$POLICY_OUT" \
    --evaluation "$TOY_ROOT/eval" --world "$TOY_ROOT/world/ReVOS" --command "$COMMAND"
stage "done"
