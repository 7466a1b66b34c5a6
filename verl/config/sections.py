"""Sections of the configuration beside the workers': data, advantages, loop, supervised fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class DataConfig:
    """The data set and the prompt; handed to the task's data set as keyword arguments, batching aside."""

    name: str = "video_seg_keyframe_sft_base_mod"  # data set by name, or package.module:name
    train_files: str | None = None  # root folder of the training set
    val_files: str | None = None  # root folder of the validation set; null: no validation
    meta_file: str | None = None  # expressions file inside train_files; null: the set's own, which --plan names
    val_meta_file: str | None = None  # the same inside val_files
    exclude: str | None = None  # list of samples to leave out, as written by `veason audit`
    include_no_target: bool = False  # also train on expressions whose target is not in the video
    on_bad_sample: str = "raise"  # raise ends the run; skip draws another sample, counted and reported
    prompt_template: str | None = None  # question with {expression}, as text or as a path to a text file
    # frames of a video shown to the policy, and scored by the reward: at most this number minus one, by the published
    # rule (docs/data.md); 1 shows the anchor alone. In an evaluation sampled_frames is the number of frames itself
    sampled_frames: int = 6
    # absolute: a frame's timestamp is its index in the video; relative: its position in the prompt
    timestamp_mode: str = "absolute"
    # the frame that is always shown: a random one of the five with the largest target; first: the first with the target
    anchor_frame: str = "largest"
    reasoning: bool = True  # false: no chain of thought in prompt and responses (with compute_score: no_reasoning)
    # image resolution: every frame shown to the policy (not the keyframe alone), and the reward's masks, are resized to
    # this many pixels in height and in width
    keyframe_resize: int = 560
    # answers give coordinates from 0 to this, relative to the frame (1000 for Qwen3-VL), instead of pixels; null: what
    # the checkpoint writes
    coordinate_range: int | None = None
    max_pixels: int = 12845056  # upper bound of the image processor's smart resizing
    min_pixels: int = 3136  # lower bound of it
    max_prompt_length: int = 7100  # tokens; a longer prompt is refused by name when the data is loaded
    max_response_length: int = 1024  # tokens; a longer one is cut and counted; in fine-tuning it is refused
    rollout_batch_size: int = 16  # prompts per step (fine-tuning: examples per update); verl: train_batch_size
    val_batch_size: int = 64  # prompts per validation call
    val_max_samples: int | None = None  # validate on so many samples, the same random ones each time; null: all
    shuffle: bool = True  # a new order each episode
    seed: int = 42  # of the order, the frames drawn and the sampling
    options: dict[str, Any] = field(default_factory=dict)  # further keyword arguments of a data set of your own
    # several sets at once, in place of name: label -> keys of this section and its weight in an episode, such as
    # data.mix.revos.weight=2 data.mix.mevis.weight=1 data.mix.mevis.train_files=/data/MeViS
    mix: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AlgorithmConfig:
    """From scores to advantages, on the driver."""

    adv_estimator: str = "grpo"  # by name (verl.algorithms.advantages), or package.module:name
    gamma: float = 1.0  # discount of reinforce_plus_plus
    kl_coef: float = 0.0  # KL in the reward: only 0 is possible, the KL term is in the loss (worker.actor.use_kl_loss)
    dynamic_sampling: bool = False  # DAPO: draw further prompts in place of groups whose scores are all equal
    max_sampling_rounds: int = 4  # rollout rounds per step before a smaller batch is trained on
    # steps in a row without a readable answer, or without a group whose scores differ, after which the log warns
    collapse_patience: int = 10
    # share of a step's groups that may have a NaN score, for which they are left out; more of them end the run
    max_frac_nan: float = 1.0
    overlong_buffer: int = 0  # DAPO: a response within so many tokens of the limit loses score, linearly; 0 is off
    overlong_penalty: float = 1.0  # what a response at the limit loses


@dataclass(frozen=True)
class TrainerConfig:
    """The loop, its machines, its records."""

    device: str = "cuda"  # cuda; cpu; auto: cuda where there is one
    nnodes: int = 1  # machines of the Ray cluster
    n_gpus_per_node: int = 1  # workers per machine: one a GPU, or so many CPU processes
    # seconds after which a phase of a step (rollout, score, update, save, ...) counts as hung and ends the run
    phase_timeout: float = 3600.0
    # consecutive updates skipped because loss or gradient was not finite, after which the run ends
    max_nonfinite_updates: int = 5
    # how often a run is restarted from its newest complete checkpoint after its driver, a worker or Ray has died
    max_restarts: int = 0
    total_episodes: int = 1  # passes over the data; verl: total_epochs
    max_steps: int | None = None  # stop after so many steps; null: at the end; verl: total_training_steps
    project_name: str = "veason_r1"  # wandb project
    experiment_name: str = "run"  # wandb run; last part of the default save_checkpoint_path
    # console, tensorboard, wandb, swanlab, mlflow, or package.module:name (verl.trainer.loggers); metrics.jsonl is
    # always written
    logger: list[str] = field(default_factory=lambda: ["console"])
    # answers kept per validation, in val_generations.jsonl and as a table in wandb
    val_generations_to_log_to_wandb: int = 0
    # every so many steps, and at each validation, some groups are written to rollouts/step_N.jsonl, with pictures; -1:
    # never
    log_rollouts_freq: int = -1
    # groups logged each time; a prompt logged before is logged again when it is drawn again, for comparison
    log_rollouts_groups: int = 2
    val_before_train: bool = False  # validate once before the first step
    val_only: bool = False  # validate and end
    test_freq: int = -1  # validate every so many steps and at the end; -1: never
    save_freq: int = -1  # save every so many steps and at the end; -1: only at the end
    # how many of the newest checkpoints are kept; -1: all. Later steps than the one saved are not touched: they are of
    # a run that this one branched from. verl: max_actor_ckpt_to_keep
    save_limit: int = -1
    best_metric: str | None = None  # such as val/reward/mean: the best checkpoint by this metric is kept too
    best_mode: str = "max"  # max or min is best
    save_weights_only: bool = False  # no optimizer state: checkpoints that a run cannot resume from
    # dtype of the saved model; null: the training's, fp32. With bf16 the fp32 weights are saved too, in actor/state,
    # so that a run resumes exactly
    save_dtype: str | None = None
    remove_previous_ckpt: bool = False  # the same as save_limit: 1
    # null: checkpoints/<project_name>/<experiment_name>; verl: default_local_dir
    save_checkpoint_path: str | None = None
    # a checkpoint to start from: a global_step_N folder, a run's folder (its latest one), or "latest" (the latest of
    # save_checkpoint_path); verl: resume_from_path
    load_checkpoint_path: str | None = None
    # auto: continue from the newest complete checkpoint of save_checkpoint_path; where there is none, and with disable,
    # load_checkpoint_path decides (verl's resume_from_path)
    resume_mode: str = "disable"


@dataclass(frozen=True)
class SFTConfig:
    """Supervised fine-tuning (`verl.trainer.sft`) alone."""

    val_ratio: float = 0.05  # share of the training records held out where data.val_files is null
    # processes per worker that load and pack the examples of the next steps, as in a DataLoader; 0: threads of the
    # worker, which delay its kernel launches
    num_workers: int = 0
    val_generations: int = 0  # held-out prompts whose greedy answers are scored at each validation; 0: none
