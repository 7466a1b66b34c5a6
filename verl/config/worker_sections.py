"""Sections of a worker's configuration: actor, reference model, rollout engine, reward. The names are the published
recipe's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModelConfig:
    """The policy's checkpoint and how it is wrapped."""

    model_path: str | None = None  # Hugging Face folder or hub name of a checkpoint; verl: model.path
    tokenizer_path: str | None = None  # folder of the tokenizer and processor; model_path when null
    # entries that replace those of the checkpoint's config.json
    override_config: dict[str, Any] = field(default_factory=dict)
    # of the language model: auto, flash_attention_4, flex_attention, sdpa (verl.models.attention)
    attn_implementation: str = "auto"
    enable_gradient_checkpointing: bool = True  # recompute activations in the backward pass
    gradient_checkpointing_language: float = 1.0  # share of the language layers that do so; the others keep theirs
    gradient_checkpointing_vision: float = 1.0  # the same of the vision tower's blocks
    trust_remote_code: bool = False  # run Python that a checkpoint brings along
    freeze_vision_tower: bool = False  # train the language model only
    lora_rank: int = 0  # 0 trains every weight; above it, a peft adapter of this rank
    lora_alpha: float = 32.0  # the adapter's output is scaled by lora_alpha / lora_rank
    lora_dropout: float = 0.0  # dropout in front of the adapter
    # "all-linear" (of the language model), or names of linear layers, comma-separated
    lora_target_modules: str = "all-linear"
    lora_merge: bool = True  # checkpoints hold the merged model in huggingface/ beside the adapter


@dataclass(frozen=True)
class OptimConfig:
    """AdamW and the schedule of its learning rate."""

    lr: float = 1e-6  # peak learning rate
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])  # decay of the first and second moment
    eps: float = 1e-8  # added to the root of the second moment
    weight_decay: float = 1e-2  # decoupled weight decay
    lr_warmup_steps_ratio: float = 0.0  # share of all updates over which the rate rises linearly from 0
    lr_scheduler_type: str = "constant"  # after the warm-up: constant, cosine or linear
    min_lr_ratio: float = 0.0  # where cosine and linear end, as a share of lr
    training_steps: int = -1  # updates in the whole run; derived by the trainer


@dataclass(frozen=True)
class FSDPConfig:
    """How FSDP2 shards and casts a model."""

    # dtype of the stored weights; null is fp32 for what is trained, mp_param_dtype for a frozen model
    torch_dtype: str | None = None
    mp_param_dtype: str = "bf16"  # dtype of the gathered weights and of the computation
    mp_reduce_dtype: str = "fp32"  # dtype in which gradients are summed over ranks
    # ranks that share one copy of the weights, such as a machine's; -1: all. Copies sum their gradients once an update
    fsdp_size: int = -1
    # ZeRO-3: free gathered weights after a block; false: after a step (ZeRO-2), frozen ones stay unsharded
    enable_full_shard: bool = True
    # sum gradients over ranks once an update instead of after each micro-batch: each rank holds all of them meanwhile.
    # Where one rank has all shards it is always so
    reduce_gradients_once: bool = False
    # FSDP's own CPU offload, much slower than offload.param_offload: weights stay on the host, and every pass fetches
    # them block by block
    enable_cpu_offload: bool = False


@dataclass(frozen=True)
class OffloadConfig:
    """What is offloaded to the host while it is not used."""

    param_offload: bool = False  # weights, between the phases that use them
    optimizer_offload: bool = False  # the optimizer's moments; a step brings them to the GPU in chunks of 1 GiB


@dataclass(frozen=True)
class ActorConfig:
    """The policy update."""

    global_batch_size: int = 16  # prompts (groups of rollout.n responses) per optimizer step; verl: ppo_mini_batch_size
    # counts groups of rollout.n responses, not responses as in EasyR1: how many are packed into one forward and
    # backward pass; verl: ppo_micro_batch_size_per_gpu
    micro_batch_size_per_device_for_update: int = 1
    # counts groups too: how many are packed into one pass that only computes log-probabilities; verl:
    # log_prob_micro_batch_size_per_gpu
    micro_batch_size_per_device_for_experience: int = 1
    # token budget of a pass; if set, it replaces the two counts above; verl: ppo_max_token_len_per_gpu
    max_tokens_per_micro_batch: int | None = None
    # the gradient is scaled down to this norm; null or 0: it is not; verl: grad_clip
    max_grad_norm: float | None = 1.0
    use_kl_loss: bool = True  # add the KL term to the loss; needs the reference model
    kl_loss_coef: float = 1e-3  # weight of the KL term
    kl_loss_type: str = "low_var_kl"  # estimator by name (verl.algorithms.kl), or package.module:name
    entropy_coeff: float = 1e-3  # weight of the entropy bonus; 0 skips its computation
    policy_loss: str = "vanilla"  # by name (verl.algorithms.losses), or package.module:name
    # token-mean, seq-mean-token-sum, seq-mean-token-mean, seq-mean-token-sum-norm
    loss_agg_mode: str = "seq-mean-token-mean"
    # the ratio is clipped to [1 - clip_ratio_low, 1 + clip_ratio_high]
    clip_ratio: float | None = None  # null: the loss's own, 0.2 for vanilla, 3e-4 and 4e-4 for gspo
    clip_ratio_low: float | None = None  # null: clip_ratio
    clip_ratio_high: float | None = None  # null: clip_ratio; larger is DAPO's clip-higher
    # dual clip's bound for negative advantages (above 1); null: off; verl: clip_ratio_c
    clip_ratio_dual: float | None = None
    # truncated importance sampling: bound of actor / rollout probability; null: off; verl: rollout_is_threshold
    tis_cap: float | None = None
    ppo_epochs: int = 1  # passes over each rollout batch
    use_torch_compile: bool = False  # compile the language model's layers whole, the reference's too; on CUDA only
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    fsdp: FSDPConfig = field(default_factory=FSDPConfig)
    offload: OffloadConfig = field(default_factory=OffloadConfig)

    @property
    def with_ref(self) -> bool:
        """Whether the loss has a KL term, which needs the log-probabilities of the reference model."""
        return self.use_kl_loss and self.kl_loss_coef != 0


@dataclass(frozen=True)
class RefConfig:
    """The reference model; with LoRA it is the actor with its adapter disabled, and this has no effect."""

    fsdp: FSDPConfig = field(default_factory=FSDPConfig)
    offload: OffloadConfig = field(default_factory=OffloadConfig)


@dataclass(frozen=True)
class RolloutConfig:
    """Generation by vLLM."""

    n: int = 8  # responses per prompt
    temperature: float = 1.0  # sampling temperature in training
    top_p: float = 1.0  # nucleus sampling; 1 is off
    top_k: int = -1  # -1 is off
    seed: int = 0  # added to the seed of every request
    ignore_eos: bool = False  # generate to the length limit (for measurements)
    val_temperature: float = 0.0  # validation; 0 is greedy
    val_n: int = 1  # responses per validation prompt
    tensor_parallel_size: int = 1  # GPUs that share one engine; verl: tensor_model_parallel_size
    gpu_memory_utilization: float = 0.5  # share of the GPU for the engine's weights and cache while it is awake
    cpu_kv_cache_gib: float = 0.25  # the cache's size on a machine without a GPU
    # the cache's size on a GPU; null: what gpu_memory_utilization leaves, measured at the start
    kv_cache_gib: float | None = None
    # give the GPU's memory back between rollouts; false, with kv_cache_gib, where several runs share one GPU
    enable_sleep_mode: bool = True
    dtype: str = "bf16"  # dtype of the engine's weights
    enforce_eager: bool = False  # no CUDA graphs
    enable_chunked_prefill: bool = True  # mix prompt chunks with decoding
    max_num_batched_tokens: int | None = None  # per engine step; null: vLLM's own choice, at least one whole prompt
    max_num_seqs: int = 256  # sequences decoded at once
    max_model_len: int | None = None  # null: max_prompt_length + max_response_length
    prompt_length: int = -1  # data.max_prompt_length; derived
    response_length: int = -1  # data.max_response_length; derived


@dataclass(frozen=True)
class RewardConfig:
    """Which score, and what it takes; handed to the task's scorer as keyword arguments."""

    reward_type: str = "function"  # of the published YAML; there is no other value
    compute_score: str = "video_match_keyframe_sft_sam_mod"  # rule by name, or package.module:name
    weights: dict[str, float] = field(default_factory=dict)  # part -> its factor in the score; 1 where not named
    tracker: str = "sam2"  # by name, or package.module:name; only rules that compare masks load it
    tracker_options: dict[str, Any] = field(default_factory=dict)  # the tracker's own keyword arguments
    on_tracker_error: str = "raise"  # raise ends the run; skip leaves the group out, counted and reported
    # a scorer that raises, or a score that is infinite or beyond 1e18: raise ends the run; skip leaves the group out
    on_scorer_error: str = "raise"
    options: dict[str, Any] = field(default_factory=dict)  # keyword arguments of a rule of your own


@dataclass(frozen=True)
class WorkerConfig:
    """Everything that one worker (one GPU) holds."""

    actor: ActorConfig = field(default_factory=ActorConfig)
    ref: RefConfig = field(default_factory=RefConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
