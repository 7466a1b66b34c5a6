"""Advantages of outcome rewards, without a critic.

Every estimator takes `rewards` [batch, length] (the score stands on a response's last token) and `mask`, plus those of
these inputs that its signature names: `index` [batch], equal for the responses of one prompt; `baselines` [batch], the
score of the prompt's greedy response; `self_certainty` [batch], one number per response. It returns (advantages,
returns), both [batch, length].
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from verl.registry import load_by_name

Advantages = tuple[Tensor, Tensor]
INPUTS = ("index", "baselines", "self_certainty")  # what an estimator can ask for besides rewards and mask


def grpo(rewards: Tensor, mask: Tensor, index: Tensor, epsilon: float = 1e-6) -> Advantages:
    """(r - mean) / (std + epsilon) over the group, with the unbiased std; a group of one keeps r.

    Source: Shao et al., DeepSeekMath (arXiv 2402.03300), section 4.1.2; SitongGong/Veason-R1 verl/trainer/core_algos.py
    compute_grpo_outcome_advantage, and verl's function of that name.
    """
    return _per_token(normalize_by_group(rewards.sum(-1), index, epsilon), mask)


def dr_grpo(rewards: Tensor, mask: Tensor, index: Tensor) -> Advantages:
    """r - mean over the group; a group of one keeps r.

    Source: Liu et al., Understanding R1-Zero-Like Training (arXiv 2503.20783), section 3.1; volcengine/verl
    verl/trainer/ppo/core_algos.py compute_grpo_outcome_advantage with norm_adv_by_std_in_grpo=False.
    """
    return _per_token(normalize_by_group(rewards.sum(-1), index, None), mask)


def rloo(rewards: Tensor, mask: Tensor, index: Tensor, refuse_single: bool = False) -> Advantages:
    """r - mean of the group's other responses. A group of one keeps r, or is refused.

    Source: Ahmadian et al., Back to Basics (arXiv 2402.14740), equation 7; volcengine/verl
    verl/trainer/ppo/core_algos.py compute_rloo_outcome_advantage; with `refuse_single` hiyouga/EasyR1
    verl/trainer/core_algos.py.

    Raises:
        ValueError: a group of one where that is refused.
    """
    scores = rewards.sum(-1)
    groups = _Groups(index, scores)
    if refuse_single and bool((groups.sizes == 1).any()):
        raise ValueError("rloo compares a response with the others of its prompt: it needs worker.rollout.n above 1")
    others = (groups.sum(scores) - scores) / (groups.sizes - 1).clamp(min=1)
    return _per_token(scores - others, mask)


def reinforce_plus_plus(rewards: Tensor, mask: Tensor, gamma: float = 1.0, keep_masked: bool = False) -> Advantages:
    """Discounted rewards to go, whitened over all tokens of the batch. A masked token passes nothing on to the tokens
    before it.

    Source: Hu, REINFORCE++ (arXiv 2501.03262); SitongGong/Veason-R1 verl/trainer/core_algos.py
    compute_reinforce_plus_plus_outcome_advantage. With `keep_masked` it is hiyouga/EasyR1's function of that name,
    which leaves values on masked tokens and adds 1e-8 to the number of tokens in its means.
    """
    given, kept = rewards.T.contiguous(), mask.T.contiguous()  # [length, batch]: a step is one piece of memory
    steps = torch.zeros_like(given)
    running = torch.zeros_like(given[0])
    for step in reversed(range(len(given))):
        running = given[step] + gamma * running
        steps[step] = running
        running = running * kept[step]
    returns = steps.T.contiguous()
    tokens = mask.sum()
    if tokens <= 1:
        raise ValueError("reinforce_plus_plus whitens over the batch's tokens and needs more than one")
    slack = 1e-8 if keep_masked else 0.0
    mean = (returns * mask).sum() / (tokens + slack)
    variance = ((returns - mean).square() * mask).sum() / (tokens + slack) * (tokens / (tokens - 1))
    advantages = (returns - mean) * torch.rsqrt(variance + 1e-8)
    return (advantages if keep_masked else advantages * mask), returns


def remax(rewards: Tensor, mask: Tensor, baselines: Tensor) -> Advantages:
    """Rewards to go minus the score of the prompt's greedy response.

    Source: Li et al., ReMax (arXiv 2310.10505), algorithm 1; SitongGong/Veason-R1 verl/trainer/core_algos.py
    compute_remax_outcome_advantage.
    """
    returns = (rewards * mask).flip(-1).cumsum(-1).flip(-1)
    return returns - baselines[:, None] * mask, returns


def grpo_certainty(
    rewards: Tensor, mask: Tensor, index: Tensor, self_certainty: Tensor, epsilon: float = 1e-6
) -> Advantages:
    """The group-normalized score plus the group-normalized self-certainty of the response.

    `self_certainty` is the mean over a response's tokens (Veason-R1: of its reasoning alone, where that is found) of
    log-sum-exp minus mean logit. Up to a constant that is the divergence of the uniform distribution from the policy's:
    self-certainty, Kang et al., arXiv 2502.18581. `PolicyModel.forward(..., self_certainty=True)` gives it per token.

    Source: SitongGong/Veason-R1 verl/trainer/ray_trainer.py compute_advantage, branch "grpo_certainty".
    """
    scores, certainties = (normalize_by_group(each, index, epsilon) for each in (rewards.sum(-1), self_certainty))
    return _per_token(scores + certainties, mask)


def normalize_by_group(scores: Tensor, index: Tensor, epsilon: float | None) -> Tensor:
    """Scores [batch] minus their group's mean, over its unbiased std + epsilon unless None; a group of one stays."""
    groups = _Groups(index, scores)
    single = groups.sizes == 1
    centred = scores - (groups.sum(scores) / groups.sizes).masked_fill(single, 0.0)
    if epsilon is None:
        return centred
    std = (groups.sum(centred.square()) / (groups.sizes - 1).clamp(min=1)).sqrt()
    # of a group of one the references divide by a float32 1 + epsilon, whatever the scores' dtype
    return centred / (std + epsilon).masked_fill(single, float(torch.tensor(1.0) + epsilon))


class _Groups:
    """Sums over the responses that share a prompt, in time and memory linear in the batch.

    Attributes:
        sizes: [batch], how many responses share each one's prompt, in the scores' dtype.
    """

    def __init__(self, index: Tensor, scores: Tensor) -> None:
        index = torch.as_tensor(index, device=scores.device)
        groups, self._group = torch.unique(index, return_inverse=True)  # [batch]: each one's group, from 0
        self._count = len(groups)
        self.sizes = self.sum(torch.ones_like(scores))

    def sum(self, values: Tensor) -> Tensor:
        """[batch]: the sum of each one's group."""
        return values.new_zeros(self._count).index_add(0, self._group, values)[self._group]


def _per_token(scores: Tensor, mask: Tensor) -> Advantages:
    """One number per response on each of its tokens."""
    tokens = scores[:, None] * mask
    return tokens, tokens


ADVANTAGE_ESTIMATORS: Mapping[str, Callable[..., Advantages]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "reinforce_plus_plus": reinforce_plus_plus,
    "remax": remax,
    "grpo_certainty": grpo_certainty,
}

# Estimators that give every token of a response the same number, so that one token stands for all of them.
PER_RESPONSE = frozenset({"grpo", "dr_grpo", "rloo", "remax", "grpo_certainty"})


def required_inputs(name: str) -> frozenset[str]:
    """What an estimator takes besides rewards and mask, such as {"index", "baselines"}."""
    parameters = inspect.signature(load_by_name(name, ADVANTAGE_ESTIMATORS, "advantage estimator")).parameters.values()
    return frozenset(p.name for p in parameters if p.default is p.empty) - {"rewards", "mask"}


def compute_advantages(
    name: str, rewards: Tensor, mask: Tensor, inputs: Mapping[str, Tensor | None], **options: Any
) -> Advantages:
    """Advantages by an estimator's name.

    Args:
        inputs: those that this run computes of `index`, `baselines`, `self_certainty`; None counts as not computed.
        options: the estimator's own settings, such as gamma.

    Raises:
        ValueError: the estimator takes an input that this run does not compute.
    """
    function = load_by_name(name, ADVANTAGE_ESTIMATORS, "advantage estimator")
    chosen = {key: inputs.get(key) for key in required_inputs(name)}
    missing = sorted(key for key, value in chosen.items() if value is None)
    if missing:
        raise ValueError(f"advantage estimator {name!r} asks for {', '.join(missing)}, which this run does not compute")
    with torch.no_grad():
        return function(rewards, mask, **chosen, **options)
