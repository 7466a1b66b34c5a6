"""Keys of the published YAML and command lines, of the EasyR1 releases it grew from, and of earlier versions of this
project, that have another name or no effect here.
"""

from __future__ import annotations

RENAMED = {
    "trainer.worker_timeout": "trainer.phase_timeout",
    "trainer.resume": "trainer.resume_mode",
    "trainer.max_bad_updates": "trainer.max_nonfinite_updates",
    "algorithm.max_uncomputed_share": "algorithm.max_frac_nan",
    "algorithm.collapse_steps": "algorithm.collapse_patience",
    "data.anchor": "data.anchor_frame",
    "data.box_side": "data.coordinate_range",
    "data.frame_index": "data.timestamp_mode",
    "data.include_absent": "data.include_no_target",
    "worker.reward.sam2_config": "worker.reward.tracker_options.sam2_config",
    "worker.reward.sam2_checkpoint": "worker.reward.tracker_options.sam2_checkpoint",
}

# The published YAML has these switches in two sections. Those of `fsdp` may only be off; on, the other one is named.
OFF_ONLY = {
    "worker.*.fsdp.param_offload": "offload.param_offload",
    "worker.*.fsdp.optimizer_offload": "offload.optimizer_offload",
}

NO_EFFECT = {
    "data.prompt_key": "a data set builds its own prompt",
    "data.answer_key": "a data set keeps its own ground truth",
    "data.image_key": "a data set finds its own images",
    "data.other_train_files": "name several sets in data.mix",
    "data.reference_image_resize": "boxes and masks are at data.keyframe_resize",
    "data.sam2_mode": "worker.reward.compute_score and tracker decide",
    "data.sam3_mode": "worker.reward.compute_score and tracker decide",
    "data.return_raw_*": "prompts are built on the worker that needs them",
    "data.system_prompt*": "use data.prompt_template",
    "data.use_text_prompt": "use data.prompt_template",
    "data.gpus_to_use": "CUDA_VISIBLE_DEVICES decides",
    "algorithm.lam": "there is no critic",
    "algorithm.kl_penalty": "the KL term is in the loss: worker.actor.kl_loss_type",
    "algorithm.kl_type": "the KL term is in the loss with a fixed coefficient",
    "algorithm.kl_horizon": "the KL term is in the loss with a fixed coefficient",
    "algorithm.kl_target": "the KL term is in the loss with a fixed coefficient",
    "worker.hybrid_engine": "actor and rollout always share a worker",
    "worker.critic": "there is no critic",
    "worker.critic.*": "there is no critic",
    "worker.*.strategy": "sharding is FSDP2",
    "worker.*.padding_free": "nothing is padded",
    "worker.*.ulysses_sequence_parallel_size": "a group is one sequence on one GPU",
    "worker.*.fsdp.enable_rank0_init": "every rank reads its own shard",
    "worker.*.fsdp.use_orig_params": "FSDP2 always keeps the parameters",
    "worker.*.fsdp.mp_buffer_dtype": "buffers keep their dtype",
    "worker.ref.micro_batch_size_per_device_for_experience": "the actor's decides",
    "worker.rollout.name": "the engine is vLLM",
    "worker.rollout.load_format": "weights are synchronized in memory",
    "worker.rollout.free_cache_engine": "worker.rollout.enable_sleep_mode decides",
    "worker.rollout.disable_log_stats": "the run's own metrics show them",
    "worker.rollout.disable_tqdm": "the run shows a progress bar of its own",
    "worker.rollout.do_sample": "temperature decides",
    "worker.rollout.limit_images": "the data set decides",
    "worker.rollout.val_override_config": "use worker.rollout.val_temperature and val_n",
    "worker.rollout.trust_remote_code": "worker.actor.model.trust_remote_code decides",
    "trainer.critic_warmup": "there is no critic",
    "trainer.del_local_ckpt_after_load": "a checkpoint that was loaded is kept",
}
