"""All 437 vectors of the reference implementations (assets/grpo.npz: inputs and numbers, no code), through the public
functions by name.

Tolerances: float32 1e-4 relative and 1e-5 absolute, float64 1e-9 and 1e-12; 0.1 absolute where a case is marked
    ill-conditioned.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from verl.algorithms.advantages import compute_advantages
from verl.algorithms.aggregation import aggregate, masked_mean
from verl.algorithms.kl import KL_PENALTIES
from verl.algorithms.losses import POLICY_LOSSES

STORE = np.load(Path(__file__).parent / "assets" / "grpo.npz")
CASES: list[dict[str, Any]] = json.loads(str(STORE["index_json"]))


def stored(entry: dict[str, Any]) -> Tensor:
    shape, offset = entry["shape"], entry["offset"]
    return torch.from_numpy(STORE[entry["store"]][offset : offset + math.prod(shape)].reshape(shape).copy())


def cases(*groups: str) -> Any:
    chosen = [case for case in CASES if case["group"] in groups]
    assert chosen
    return pytest.mark.parametrize("case", chosen, ids=[case["id"] for case in chosen])


def inputs(case: dict[str, Any]) -> dict[str, Tensor]:
    return {name: stored(entry) for name, entry in case["inputs"].items()}


def check(case: dict[str, Any], found: dict[str, Tensor], names: set[str] | None = None, single: bool = False) -> None:
    """`single`: the case computes in float32 whatever its inputs are, so its last digits are the processor's."""
    double = case["params"]["dtype"] == "float64" and not single
    rtol, atol = (1e-9, 1e-12) if double else (1e-4, 1e-5)
    if case["params"].get("ill_conditioned"):
        atol = 0.1
    for name in names or case["outputs"]:
        expected, ours = stored(case["outputs"][name]).double(), found[name].double()
        if (
            name.startswith("grad_") and "kl" in case["outputs"]
        ):  # where the reference's gradient is NaN a finite one is an improvement
            assert bool(ours.isfinite().all())
            expected = expected.where(~expected.isnan(), ours)
        torch.testing.assert_close(
            ours, expected, rtol=rtol, atol=atol, equal_nan=True, msg=lambda text, name=name: f"{name}: {text}"
        )


ESTIMATORS = {
    "veason_grpo": ("grpo", {}),
    "verl_grpo": ("grpo", {}),
    "verl_dr_grpo": ("dr_grpo", {}),
    "verl_rloo": ("rloo", {}),
    "easyr1_rloo": ("rloo", {"refuse_single": True}),
    "veason_reinforce_pp": ("reinforce_plus_plus", {}),
    "easyr1_reinforce_pp": ("reinforce_plus_plus", {"keep_masked": True}),
    "veason_remax": ("remax", {}),
}


@cases(*ESTIMATORS)
def test_advantages(case: dict[str, Any]) -> None:
    name, options = ESTIMATORS[case["group"]]
    given = inputs(case)
    options = options | {key: case["params"][key] for key in ("gamma",) if key in case["params"]}
    if name == "grpo":
        options = options | {"epsilon": case["params"]["epsilon"]}

    def run() -> tuple[Tensor, Tensor]:
        at_hand = {"index": given.get("index"), "baselines": given.get("reward_baselines")}
        return compute_advantages(name, given["token_level_rewards"], given["mask"], at_hand, **options)

    if case["raises"]:
        with pytest.raises(ValueError, match="above 1"):
            run()
        return
    advantages, returns = run()
    check(case, {"advantages": advantages, "returns": returns})


def policy_loss(case: dict[str, Any]) -> tuple[str, dict[str, Any], str, str]:
    """The loss's name, its options, the aggregation and what it does to empty rows."""
    params = case["params"]
    if case["group"] == "veason_policy_loss":
        options = {"clip_low": params["cliprange"], "clip_high": params["cliprange"], "clip_dual": None, "bound": None}
        return "vanilla", options, "token-mean", "nan"
    clip = {"clip_low": params["clip_ratio_low"], "clip_high": params["clip_ratio_high"]}
    if case["group"] == "verl_policy_loss_vanilla":
        return "vanilla", clip | {"clip_dual": params["clip_ratio_c"]}, params["loss_agg_mode"], "skip"
    if case["group"] == "verl_gspo":
        return "gspo", clip, "seq-mean-token-mean", "skip"
    name = {"default": "vanilla", "gspo": "gspo_sequence", "gspo_token": "gspo"}[params["loss_type"]]
    mode = {"token": "token-mean", "seq": "seq-mean-token-mean"}[params["loss_avg_mode"]]
    return name, clip | {"clip_dual": params["clip_ratio_dual"], "bound": 20.0}, mode, "zero"


@cases("veason_policy_loss", "verl_policy_loss_vanilla", "verl_gspo", "easyr1_policy_loss")
def test_policy_losses(case: dict[str, Any]) -> None:
    given = inputs(case)
    name, options, mode, empty = policy_loss(case)
    log_probs, mask = given["log_prob"].requires_grad_(), given["mask"]
    loss = POLICY_LOSSES[name](log_probs, given["old_log_prob"], given["advantages"], mask, **options)
    total = aggregate(loss.values, mask, mode, empty=empty)
    total.backward()
    metrics = {key: masked_mean(value, mask) for key, value in loss.metrics().items()}
    found = {
        "pg_loss": total.detach(),
        "grad_log_prob": log_probs.grad,
        **metrics,
        "pg_clipfrac_higher": metrics["pg_clipfrac"],
        "entropy_loss": aggregate(-log_probs.detach(), mask, mode, empty=empty),
    }
    edge = case["params"]["case"] == "ratio_at_the_clip_edge"
    check(case, found, {"pg_loss", "ppo_kl"} if edge else None)


@cases("veason_agg_loss", "verl_agg_loss")
def test_aggregation(case: dict[str, Any]) -> None:
    params, given = case["params"], inputs(case)
    found = aggregate(
        given["loss_mat"],
        given["mask"],
        params["loss_agg_mode"],
        batch_tokens=params.get("batch_num_tokens"),
        batch_sequences=params.get("global_batch_size"),
        norm=params.get("loss_scale_factor"),
        empty="nan" if case["group"].startswith("veason") else "skip",
    )
    check(case, {"loss": found * params.get("dp_size", 1)})


@cases("veason_kl_penalty", "verl_kl_penalty", "easyr1_compute_kl")
def test_kl(case: dict[str, Any]) -> None:
    given = inputs(case)
    log_probs, ref_log_probs = given["logprob"].requires_grad_(), given["ref_logprob"]
    single = case["group"].startswith("easyr1")  # always in float32 there
    penalty = KL_PENALTIES[case["params"]["kind"]]
    found = penalty(log_probs.float(), ref_log_probs.float()) if single else penalty(log_probs, ref_log_probs)
    found.sum().backward()
    check(case, {"kl": found.detach(), "grad_logprob": log_probs.grad}, single=single)


def test_every_case_is_used() -> None:
    groups = {*ESTIMATORS, "veason_policy_loss", "verl_policy_loss_vanilla", "verl_gspo", "easyr1_policy_loss"}
    groups |= {"veason_agg_loss", "verl_agg_loss", "veason_kl_penalty", "verl_kl_penalty", "easyr1_compute_kl"}
    assert sum(case["group"] in groups for case in CASES) == len(CASES) == 437
