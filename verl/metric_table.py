"""Every metric of a run: its unit, what it means and what a healthy value is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class MetricInfo:
    """What a metric is.

    Attributes:
        name: as in metrics.jsonl; `<word>` stands for names that depend on the run.
        unit: "" for a number without one.
        meaning: one sentence.
        healthy: what to expect, and what another value says.
    """

    name: str
    unit: str
    meaning: str
    healthy: str

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        parts = re.split(r"<\w+>", self.name)
        return re.compile("[^/]+".join(map(re.escape, parts)))


SECTIONS: dict[str, tuple[str, tuple[MetricInfo, ...]]] = {
    "Reward": (
        "Over all responses of the step's groups whose score could be computed; `val/` is the same for a validation.",
        (
            MetricInfo(
                "reward/mean",
                "score",
                "Mean total score of the responses.",
                "Rises over tens of steps; 0 to 5 with the published rule. Flat from the start: look at the parts, "
                "`failure/any` and `reward/all_equal`.",
            ),
            MetricInfo(
                "reward/std",
                "score",
                "Standard deviation over all responses, between prompts and within groups.",
                "Above 0; falls slowly as the policy settles.",
            ),
            MetricInfo("reward/min", "score", "Lowest total score.", "Often 0: a response that could not be parsed."),
            MetricInfo("reward/max", "score", "Highest total score.", "Near the rule's maximum sooner or later."),
            MetricInfo(
                "reward/group_std",
                "score",
                "Mean over groups of the standard deviation within the group: the signal that GRPO learns from.",
                "Clearly above 0. Near 0: all responses to a prompt are alike; raise the temperature or choose harder "
                "prompts.",
            ),
            MetricInfo(
                "reward/all_equal",
                "share of groups",
                "Groups whose scores are all equal: they have no advantage and add nothing to the update.",
                "Below 0.5. At 1 nothing is learned; algorithm.dynamic_sampling replaces such groups.",
            ),
            MetricInfo(
                "reward/uncomputed",
                "share of groups",
                "Groups whose score could not be computed (on_tracker_error=skip); they are left out.",
                "0. Above it: logs/rank_N.log names the samples.",
            ),
            MetricInfo(
                "collapse/<kind>_steps",
                "steps",
                "Steps in a row in which no answer could be parsed (unreadable), or each group had equal scores (equal).",
                "0. The log warns once after algorithm.collapse_steps of them.",
            ),
            MetricInfo(
                "part/<name>_mean",
                "score",
                "Mean of a reward part, unweighted: format 0 to 2, keyframe, spatial and consistency 0 to 1.",
                "The format part is near 2 after SFT; the others rise. One that falls while the total rises is traded "
                "away: see worker.reward.weights.",
            ),
            MetricInfo("part/<name>_std", "score", "Standard deviation of the part over responses.", "Above 0."),
            MetricInfo(
                "part/<name>_zero",
                "share of responses",
                "Responses that score exactly 0 in the part.",
                "Falls. Near 1: the part gives no signal yet.",
            ),
            MetricInfo(
                "failure/any",
                "share of responses",
                "Responses that could not be parsed.",
                "Falls towards 0 within the first tens of steps; above 0.2 after SFT, look at rollouts/.",
            ),
            MetricInfo(
                "failure/<cause>",
                "share of responses",
                "The same by cause: no_answer, bad_json, bad_keyframe, bad_boxes (`veason.answers`).",
                "One cause that dominates is a habit of the SFT data or of the prompt.",
            ),
        ),
    ),
    "Responses and prompts": (
        "",
        (
            MetricInfo(
                "response/mean",
                "tokens",
                "Mean length of the responses.",
                "Steady. A steady climb towards the limit without reward is length hacking; a collapse means that the "
                "reasoning is dropped.",
            ),
            MetricInfo("response/max", "tokens", "Longest response.", "Below data.max_response_length."),
            MetricInfo(
                "response/truncated",
                "share of responses",
                "Responses that hit data.max_response_length; their answer is cut off.",
                "Below 0.02. Above: raise data.max_response_length, or algorithm.overlong_buffer.",
            ),
            MetricInfo("prompt/mean", "tokens", "Mean length of the prompts, images included.", "As the data is."),
            MetricInfo("prompt/max", "tokens", "Longest prompt.", "Below data.max_prompt_length."),
            MetricInfo(
                "data/skipped",
                "samples",
                "Samples left out since the run was started (data.on_bad_sample=skip); skipped.txt names them.",
                "0, or a constant.",
            ),
        ),
    ),
    "Policy update": (
        "Means over all response tokens of the batch, over the updates of the step.",
        (
            MetricInfo(
                "actor/loss",
                "",
                "Policy loss + kl_loss_coef x KL - entropy_coeff x entropy.",
                "Near 0, and no measure of progress: advantages have mean 0.",
            ),
            MetricInfo("actor/pg_loss", "", "The policy loss alone.", "Near 0, as `actor/loss`."),
            MetricInfo(
                "actor/kl",
                "nats per token",
                "Divergence from the reference model, by worker.actor.kl_loss_type.",
                "0 at the first step, then rises slowly: 0.016 at the end of the toy runs (docs/toy_results.md). "
                "Above 0.1, or a jump: the policy runs away; lower the learning rate or raise kl_loss_coef.",
            ),
            MetricInfo(
                "actor/entropy",
                "nats per token",
                "Mean entropy of the policy's next-token distribution.",
                "Falls slowly: 0.165 at the end of the toy runs. A fall to near 0 within a few steps is a collapse "
                "(no exploration); a steady rise ends in noise.",
            ),
            MetricInfo(
                "actor/grad_norm",
                "",
                "Norm of the gradient over all ranks, before it is clipped to worker.actor.max_grad_norm.",
                "Same order of magnitude from step to step. Spikes of ten times: a bad batch or too high a rate.",
            ),
            MetricInfo(
                "actor/skipped_updates",
                "updates",
                "Updates that were left out because their loss or gradient was not finite; the log names the samples.",
                "0. The run stops after trainer.max_bad_updates in a row.",
            ),
            MetricInfo("actor/lr", "", "Learning rate of the step's updates.", "As worker.actor.optim says."),
            MetricInfo(
                "actor/pg_clipfrac",
                "share of tokens",
                "Tokens whose ratio the upper or lower clip bound limits.",
                "0 with one update per rollout batch, where the ratio is 1; with several below 0.2.",
            ),
            MetricInfo(
                "actor/pg_clipfrac_lower",
                "share of tokens",
                "Tokens that the dual clip (clip_ratio_dual) limits.",
                "0, or below 0.01.",
            ),
            MetricInfo(
                "actor/ppo_kl",
                "nats per token",
                "Mean of old minus new log-probability: how far this step's updates have moved the policy.",
                "0 with one update per rollout batch; with several within 0.05 of 0.",
            ),
            MetricInfo(
                "rollout/log_prob_gap",
                "nats per token",
                "Mean |difference| between vLLM's log-probabilities when it sampled and the actor's own.",
                "Below 1e-3 in fp32 (7e-7 on the CPU, 2e-4 in the toy runs on a GPU); of the order of 1e-2 in bf16. A "
                "tenfold rise: the engine has old weights; worker.actor.tis_cap corrects for a moderate gap.",
            ),
            MetricInfo(
                "rollout/importance_weight",
                "",
                "Mean truncated importance weight (worker.actor.tis_cap).",
                "0.98 to 1.02.",
            ),
        ),
    ),
    "Supervised fine-tuning": (
        "",
        (
            MetricInfo(
                "loss",
                "nats per token",
                "Mean negative log-likelihood of the response tokens.",
                "Falls. `val/loss` that rises while it falls: overfitting.",
            ),
            MetricInfo("tokens", "tokens", "Response tokens of the step (`val/`: of the held-out set).", "Steady."),
        ),
    ),
    "Time": (
        "Wall time of a step's stages, of the slowest rank.",
        (
            MetricInfo(
                "seconds/<stage>",
                "s",
                "rollout, score (what is not hidden behind the rollout), reference, advantage, update, "
                "log_rollouts, save, the stages of a validation, and step: all but validation and save.",
                "Steady. `seconds/score` near 0: scoring is hidden behind generation.",
            ),
            MetricInfo(
                "seconds/rollout/<part>",
                "s",
                "weight_sync (weights to vLLM) and generate, summed over sampling rounds.",
                "weight_sync is about 1 s for 3B on one H200 (docs/scaling.md).",
            ),
        ),
    ),
    "Speed": (
        "",
        (
            MetricInfo(
                "perf/tokens_per_second",
                "tokens/s",
                "Prompt and response tokens of the step's groups over the time of rollout to update, all GPUs.",
                "Steady, see docs/performance.md.",
            ),
            MetricInfo("perf/generated_per_second", "tokens/s", "Response tokens over the rollout's time.", "Steady."),
            MetricInfo(
                "perf/updated_per_second",
                "tokens/s",
                "Tokens that the update passes forward and backward, over its time.",
                "Steady.",
            ),
            MetricInfo(
                "perf/mfu",
                "share of peak",
                "Model FLOPs of the step over what the GPUs' bf16 peak allows (arXiv 2204.02311); only for devices "
                "whose peak is known.",
                "Steady, see docs/performance.md.",
            ),
            MetricInfo("perf/mfu_<stage>", "share of peak", "The same for a stage alone.", "Steady."),
        ),
    ),
    "Memory and messages": (
        "",
        (
            MetricInfo(
                "memory/<phase>_gib",
                "GiB",
                "Peak of the GPU's memory in a phase (rollout, reference, update, certainty, evaluation), vLLM's pools "
                "included, of the fullest rank; on the CPU the process's peak so far.",
                "Constant after the first steps; a climb of the host's memory is a leak.",
            ),
            MetricInfo(
                "ray/megabytes_per_prompt",
                "MB",
                "What travels between driver and workers, per prompt.",
                "Below 1: pixels and masks stay on their worker.",
            ),
        ),
    ),
}
