"""Two Ray workers with everything real: rollout, score, reference, update, weight sync, checkpoint, exact resume."""

import contextlib
import json
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, Qwen3VLForConditionalGeneration

from tests.verl.workers import toy_task
from tests.verl.workers.toy_task import ToyData, make_scorer
from veason.model_info import ModelInfo, read_model_info
from verl.config import Config, override
from verl.protocol import GroupAdvantages, GroupRequest, Task
from verl.single_controller import WorkerError
from verl.workers.prompt_builder import PromptBuilder
from verl.workers.ray_backend import RayBackend

toy_task.by_value()
pytestmark = pytest.mark.timeout(900)  # two engines start one after the other
STEPS, PROMPTS = 6, 4


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def toy_config(folder):
    return override(
        Config(),
        {
            "data.seed": 3,
            "trainer.device": "cpu",
            "trainer.n_gpus_per_node": 2,
            "data.max_response_length": 24,
            "worker.actor.model.model_path": folder,
            "worker.actor.model.tokenizer_path": folder,
            "worker.actor.optim.lr": 1e-3,
            "worker.actor.max_tokens_per_micro_batch": 400,
            "worker.rollout.n": 4,
            "worker.rollout.prompt_length": 600,
            "worker.rollout.response_length": 24,
            "worker.rollout.max_num_seqs": 16,
        },
    )


def step(backend, number):
    """One GRPO step; the groups' results and the metrics."""
    requests = [
        GroupRequest(uid=number * PROMPTS + i, index=number * PROMPTS + i, seed=100 + i) for i in range(PROMPTS)
    ]
    metrics = backend.rollout([requests[replica :: backend.replicas] for replica in range(backend.replicas)])
    groups = backend.collect_scores([request.uid for request in requests])
    used = [group for group in groups if np.isfinite(group.scores).all()]
    metrics |= backend.compute_ref_log_probs([group.uid for group in used])
    advantages = []
    for group in used:
        normalized = (np.array(group.scores) - np.mean(group.scores)) / (np.std(group.scores, ddof=1) + 1e-6)
        advantages.append(
            GroupAdvantages(
                group.uid, [np.full(n, value, np.float32) for n, value in zip(group.response_tokens, normalized)]
            )
        )
    metrics |= backend.update(advantages)
    assert 0 < metrics["ray/transfer_mb_per_prompt"] < 0.1
    backend.drop([group.uid for group in groups])
    return groups, {name: value for name, value in metrics.items() if name.startswith(("actor/", "rollout/"))}


@pytest.fixture(scope="module")
def run(policy_folder, tmp_path_factory):
    """Six steps, saved after three (greedy answers follow) and after six; then three more from the first checkpoint."""
    folder, config = tmp_path_factory.mktemp("run"), toy_config(policy_folder)
    results = {"folder": folder}
    task = Task(ToyData, scorer=partial(make_scorer, nan_at=(5,)), checkpoint_files={"notes.json": {"size": 56}})
    with RayBackend(config, task) as backend:
        results["whole"] = []
        for number in range(STEPS):
            results["whole"].append(step(backend, number))
            if number == 2:
                backend.save(str(folder / "middle"))
                results["greedy"] = []
                for uid in (1000, 2000):
                    backend.rollout([[GroupRequest(uid + replica, 7, 0)] for replica in range(2)], validation=True)
                    results["greedy"] += backend.collect_scores([uid, uid + 1])
                    backend.drop([uid, uid + 1])
        backend.save(str(folder / "end"))
    with RayBackend(config, Task(ToyData, scorer=partial(make_scorer, nan_at=(5,)))) as backend:
        backend.load(str(folder / "middle"))
        results["resumed"] = [step(backend, number) for number in range(3, STEPS)]
        backend.save(str(folder / "resumed"))
    return results


def test_vllm_and_actor_agree_before_and_after_updates(run):
    gaps = [metrics["rollout/log_prob_gap"] for _, metrics in run["whole"]]
    assert max(gaps) < 1e-3 and len(gaps) == STEPS
    assert all(metrics["actor/grad_norm"] > 0 for _, metrics in run["whole"])
    assert run["whole"][0][1]["actor/kl"] == pytest.approx(0.0, abs=1e-6) and run["whole"][2][1]["actor/kl"] > 1e-6


def test_groups_are_whole_and_in_order(run):
    for number, (groups, _) in enumerate(run["whole"]):
        assert [group.sample_id for group in groups] == [f"toy/{number * PROMPTS + i}" for i in range(PROMPTS)]
        for group in groups:
            assert len(group.responses) == len(group.scores) == len(group.response_tokens) == len(group.truncated) == 4
            assert all(
                0 < tokens <= 24 and (tokens == 24 or not cut)
                for tokens, cut in zip(group.response_tokens, group.truncated)
            )
            assert len(set(group.responses)) > 1 and group.prompt_tokens > 20
    assert np.isnan(run["whole"][1][0][1].scores).all()  # prompt 5 cannot be scored, and its group is left out


def test_validation_is_greedy(run):
    assert len({group.responses[0] for group in run["greedy"]}) == 1 and all(
        len(group.responses) == 1 for group in run["greedy"]
    )


def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(run):
    for (groups, metrics), (groups_again, metrics_again) in zip(run["whole"][3:], run["resumed"], strict=True):
        assert [group.responses for group in groups] == [group.responses for group in groups_again]
        assert metrics == metrics_again
    one, other = (
        load_file(next((run["folder"] / name / "actor/huggingface").glob("*.safetensors")))
        for name in ("end", "resumed")
    )
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_what_the_task_wants_beside_the_weights_is_written_with_every_checkpoint(run):
    for name in ("middle", "end"):
        assert json.loads((run["folder"] / name / "actor/huggingface/notes.json").read_text()) == {"size": 56}


def test_a_checkpoint_loads_with_transformers(run, policy_folder):
    folder = run["folder"] / "end/actor/huggingface"
    model, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    start = AutoModelForImageTextToText.from_pretrained(policy_folder)
    assert not report["missing_keys"] and not report["unexpected_keys"] and type(model) is type(start)
    assert model.config.architectures == start.config.architectures and model.config.tie_word_embeddings
    assert any(not torch.equal(one, other) for one, other in zip(model.parameters(), start.parameters()))
    assert PromptBuilder(str(folder)).forbidden_tokens


def shared_memory_of_workers() -> set[str]:
    """What the processes below this one have mapped of /dev/shm; of what has no name any more, with " (deleted)"."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(OSError):  # it has ended
            lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
            found |= {line.partition("/dev/shm/")[2] for line in lines if "/dev/shm/" in line}
    return found


def test_tensor_parallel_engine_with_lora_and_a_scorer_that_fails(policy_folder):
    """Both workers in one engine, each with half of the groups; the adapter handed to vLLM; an error with
    sample and rank. The workers are killed at the end: no shared memory of theirs may stand in the way of the next
    engine.
    """
    parallel = {"worker.rollout.tensor_parallel_size": 2, "worker.actor.model.lora_rank": 4}
    config = override(toy_config(policy_folder), parallel)
    with RayBackend(config, Task(ToyData, scorer=partial(make_scorer, fail_at=9))) as backend:
        assert backend.replicas == 1
        mapped = shared_memory_of_workers()
        named = {name for name in mapped if not name.endswith(" (deleted)")}
        assert mapped and not [name for name in named if name.startswith("psm_") or "cpushm" in name]
        metrics = [step(backend, number)[1] for number in range(2)]
        assert max(each["rollout/log_prob_gap"] for each in metrics) < 1e-3
        assert metrics[0]["actor/kl"] == pytest.approx(0.0, abs=1e-6) and metrics[1]["actor/kl"] > 1e-7
        backend.rollout([[GroupRequest(100, 8, 0), GroupRequest(101, 9, 0)]])
        with pytest.raises(
            WorkerError,
            match="rank 1 failed in `collect_scores`: RuntimeError: toy/9: its responses could not be scored: OSError",
        ):
            backend.collect_scores([100, 101])


def test_qwen3_vl_in_a_tensor_parallel_engine_goes_on_to_the_bit(qwen3_folder, tmp_path):
    """Full weights over two ranks, in one engine of two: steps, a checkpoint, and a run that goes on from it."""
    config = override(toy_config(qwen3_folder), {"worker.rollout.tensor_parallel_size": 2})
    task = Task(ToyData, scorer=make_scorer, checkpoint_files={"veason.json": {"coordinate_range": 1000}})
    with RayBackend(config, task) as backend:
        first = step(backend, 0)
        backend.save(str(tmp_path / "middle"))
        second = step(backend, 1)
    with RayBackend(config, task) as backend:
        backend.load(str(tmp_path / "middle"))
        again = step(backend, 1)
    assert max(metrics["rollout/log_prob_gap"] for _, metrics in (first, second)) < 1e-4
    assert second[1]["actor/kl"] > 1e-7
    assert [group.responses for group in second[0]] == [group.responses for group in again[0]]
    assert second[1] == again[1]
    saved = tmp_path / "middle/actor/huggingface"
    assert read_model_info(saved) == ModelInfo("qwen3_vl", 32, 1000, trained=True)
    model, report = AutoModelForImageTextToText.from_pretrained(saved, output_loading_info=True)
    assert type(model) is Qwen3VLForConditionalGeneration and not any(report[key] for key in report)


def test_fine_tuning_needs_no_rollout_engine(policy_folder):
    config = toy_config(policy_folder)
    with RayBackend(
        config, Task(partial(ToyData, with_response=True, skipped_samples={"toy/40": "no picture"}))
    ) as backend:
        assert backend.skipped_samples() == {"toy/40": "no picture"}
        batches = [[GroupRequest(i, i, 0) for i in range(replica, 6, 2)] for replica in range(2)]
        before = backend.evaluate_loss(batches)["loss"]
        backend.prefetch_sft_batch(batches)
        losses = [backend.fine_tune(batches)["loss"] for _ in range(4)]
        assert losses[0] == pytest.approx(before, rel=1e-5) and losses[-1] < losses[0]
        with pytest.raises(WorkerError, match="was started without a scorer"):
            backend.rollout(batches)
