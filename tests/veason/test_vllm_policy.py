"""The policy on the CPU: vLLM with a tiny checkpoint of random weights."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from veason.errors import DataError
from veason.inference.vllm_policy import VISION_TOKENS, ChatPrompt, SamplingOptions, VLLMPolicy
from veason.prompts import build_messages
from veason.toy.tiny_policy import write_policy


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    write_policy(folder)
    return VLLMPolicy(folder, SamplingOptions(max_tokens=12, ignore_eos=True), max_prompt_tokens=400, max_images=3)


def ask(name, frames=3, size=56):
    pictures = np.random.default_rng(0).integers(0, 255, (frames, size, size, 3), np.uint8)
    return ChatPrompt(
        name, build_messages("the red square", range(frames), size=(size, size)), [Image.fromarray(p) for p in pictures]
    )


def test_policy(policy):
    """One engine for all of it: starting one takes longer than everything else."""
    alone, together = policy.generate([ask("a/0")]), policy.generate([ask("a/0"), ask("b/0", frames=2)])
    assert len(together) == 2 and together[0] == alone[0]  # greedy

    # A stream grows to the same answers, and one that is given up leaves nothing behind.
    steps = list(policy.stream([ask("a/0"), ask("b/0", frames=2)]))
    assert steps[-1] == together and len(steps) >= 12
    for earlier, later in pairwise(steps):
        assert all(after.startswith(before.rstrip("\ufffd")) for before, after in zip(earlier, later, strict=True))
    given_up = policy.stream([ask("a/0")])
    next(given_up)
    given_up.close()
    assert not policy.engine.llm_engine.has_unfinished_requests()
    assert policy.generate([ask("a/0")]) == alone

    # A vision token is never sampled, not even one that every logit but infinity speaks for.
    vocabulary = policy.processor.tokenizer.get_vocab()
    assert policy.logit_bias == {vocabulary[token]: float("-inf") for token in VISION_TOKENS}
    params = policy._sampling_params(ask("a/0"))
    assert params.logit_bias == policy.logit_bias and params.temperature == 0
    forbidden, policy.logit_bias = policy.logit_bias, {vocabulary["<|image_pad|>"]: 100.0}
    (output,) = policy.engine.generate(
        [policy._prompt(ask("a/0"))], policy._sampling_params(ask("a/0")), use_tqdm=False
    )
    assert set(output.outputs[0].token_ids) == {vocabulary["<|image_pad|>"]}  # so a bias is obeyed
    policy.logit_bias = forbidden

    # The length that is checked beforehand is the one that vLLM comes to.
    prompt = policy._prompt(ask("a/0"))
    policy.max_prompt_tokens = len(output.prompt_token_ids) - 1
    with pytest.raises(DataError, match=rf"a/0: the prompt has {len(output.prompt_token_ids)} tokens"):
        policy.generate([ask("a/0")])
    policy.max_prompt_tokens = len(output.prompt_token_ids)
    assert policy._prompt(ask("a/0"))["prompt"] == prompt["prompt"]
    with pytest.raises(DataError, match="c/0: 3 image placeholders and 2 images"):
        policy.generate([ChatPrompt("c/0", ask("c/0").messages, ask("c/0").images[:2])])

    # With a temperature a question's draw depends on the seed and its name, not on its neighbours.
    policy.sampling = SamplingOptions(temperature=1.0, max_tokens=12, ignore_eos=True, seed=3)
    first, second = policy.generate([ask("a/0"), ask("b/0")])
    assert policy.generate([ask("x/0"), ask("b/0"), ask("a/0")])[1:] == [second, first]
    assert first != second
