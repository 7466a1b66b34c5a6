"""`--plan`: what a run would do, without starting it: configuration, steps, tokens, memory, time, disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from verl.config import Config, OptionError
from verl.config.key_reference import as_yaml
from verl.config.loading import value_keys
from verl.config.schema import value_of
from verl.trainer.baseline_runs import find_measured_run
from verl.trainer.resource_estimates import (
    ALLOCATOR_SHARE,
    ModelSize,
    StepTokens,
    activation_bytes,
    checkpoint_bytes,
    estimate_bytes,
    estimate_seconds,
    estimate_tokens,
    find_model,
)
from verl.workers.memory import GIB, memory_plan, offloaded_components

if TYPE_CHECKING:
    from verl.protocol import Task
    from verl.trainer.run_plan import RunPlan

INCOMPLETE = 3  # exit status: the configuration is sound, and something that it needs is not on this machine


@dataclass
class PlanInputs:
    """What is planned.

    Attributes:
        name: its module.
        config: of the run.
        task: its data.
        checks: raise ConfigError, or another of `expected`, for what is missing on this machine; OptionError ends the
            plan.
        needs_rollout: whether the workers generate and score.
        val_ratio: share of the training data kept for validation.
        is_supervised: the data's own responses are trained on.
        expected: errors that say what is missing.
    """

    name: str
    config: Config
    task: Task
    checks: list[Callable[[Config], object]]
    needs_rollout: bool
    val_ratio: float
    is_supervised: bool
    expected: tuple[type[Exception], ...]
    missing: list[str] = field(default_factory=list)


def show_plan(run: PlanInputs, sources: Mapping[str, str]) -> int:
    """Prints the plan. Returns 0, or `INCOMPLETE` where something that the run needs is not on this machine."""
    written = list(configuration_lines(run.config, sources))  # as it was given
    run.config = check_machine(run)
    print("\n".join(written))
    plan, data, lengths = open_data(run)
    found = find_model(run.config)
    size = found[0] if found else None
    tokens = estimate_tokens(run.config, size, lengths[0] if lengths else None, run.is_supervised)
    print("\n".join(["", *data, *token_lines(run, tokens, lengths)]))
    if found is None or size is None:
        print("memory, time and disk: not known without the model's config.json")
    else:
        print(f"model: {size.total / 1e6:,.0f} million parameters, {size.trained / 1e6:,.0f} trained ({found[1]})")
        print("\n".join(memory_lines(run, size, tokens)))
        print("\n".join(time_lines(run, size, tokens, plan)))
        print("\n".join(disk_lines(run.config, size, plan)))
    if run.missing:
        print("\nmissing or not readable on this machine, so the run would not start here:")
        print("\n".join(f"  {line}" for line in run.missing))
    return INCOMPLETE if run.missing else 0


def configuration_lines(config: Config, sources: Mapping[str, str]) -> Iterator[str]:
    """Every key with its value, and where it comes from."""
    yield "configuration (values at their defaults first):"
    shown = {key: as_yaml(value_of(config, key)) for key in value_keys()}
    width = max(len(f"{key}={value}") for key, value in shown.items() if len(value) < 60)
    for key in sorted(shown, key=lambda key: key in sources):
        yield f"  {f'{key}={shown[key]}':{width}}  {sources.get(key, 'default')}"


def check_machine(run: PlanInputs) -> Config:
    """The configuration resolved on this machine as far as it can be; what is missing goes to `run.missing`.

    Raises:
        OptionError: an option is wrong on every machine.
    """
    config = run.config
    for check in run.checks:
        try:
            found = check(config)
        except OptionError:
            raise
        except run.expected as error:
            run.missing.append(str(error))
            continue
        config = found if isinstance(found, Config) else config
    return config


def open_data(run: PlanInputs) -> tuple[RunPlan | None, list[str], tuple[float, int] | None]:
    """The steps, None where the data is not here; lines about them; mean and maximum of the prompts' tokens, None
    where the model's tokenizer is not here.
    """
    from verl.trainer.data_sampler import train_val_split
    from verl.trainer.prompt_data import check_validation, open_prompts
    from verl.trainer.run_plan import make_run_plan

    config, lengths = run.config, None
    try:
        if has_config(config):
            prompts = open_prompts(config, run.task, run.val_ratio, run.is_supervised)
            check_validation(config, prompts)
            counts = [prompts.lengths(request) for request in prompts.sampler.preview(len(prompts.sampler))]
            lengths = sum(counts) / len(counts), max(counts)
            data, trained, num_val = prompts.lengths.data, len(counts), len(prompts.validation)
        else:
            data = run.task.data()
            share = 0.0 if run.task.validation else run.val_ratio
            names = [data.sample_id(index) for index in range(len(data))]
            trained, num_val = map(len, train_val_split(names, share, config.data.seed))
        plan = make_run_plan(config, trained)
    except run.expected as error:
        run.missing.append(str(error))
        return None, ["data and steps: not known, since the data cannot be opened (see the end)"], None
    return plan, [*getattr(data, "startup_messages", ()), *step_lines(config, plan, trained, num_val)], lengths


def has_config(config: Config) -> bool:
    """Whether the policy's dimensions and tokenizer are here."""
    model = config.worker.actor.model.model_path
    return bool(model) and (Path(model or "") / "config.json").is_file()


def step_lines(config: Config, plan: RunPlan, trained: int, num_val: int) -> Iterator[str]:
    """Data, steps, checkpoints and validations."""
    yield f"data: {trained} prompts an episode, {config.trainer.total_episodes} episodes, {num_val} for validation"
    done = f", {plan.start_step} of them done ({plan.checkpoint})" if plan.checkpoint else ""
    yield f"steps: {plan.steps}{done}; {plan.updates_per_step} optimizer steps in each, {plan.updates} in all"
    left = range(plan.start_step + 1, plan.steps + 1)
    validations = sum(map(plan.validates, left)) + config.trainer.val_before_train
    yield f"checkpoints: {sum(map(plan.saves, left))}; validations: {validations}"


def token_lines(run: PlanInputs, tokens: StepTokens, lengths: tuple[float, int] | None) -> Iterator[str]:
    """Tokens of a prompt, a response and a step."""
    origin = f"mean of the data, {lengths[1]} at most" if lengths else _estimated_from(tokens)
    response = "assumed for" if run.is_supervised else "at most"
    yield (
        f"tokens: {tokens.prompt_tokens} a prompt ({origin}; limit {run.config.data.max_prompt_length}), "
        f"{tokens.response_tokens} {response} a response; "
        f"a step of {tokens.prompts} x {tokens.rollouts}: {tokens.tokens:,}"
    )


def _estimated_from(tokens: StepTokens) -> str:
    sides = {" x ".join(map(str, size)) for size in tokens.images}
    return f"estimated from {len(tokens.images)} frame{'s' * (len(tokens.images) > 1)} of {', '.join(sides)}"


def memory_lines(run: PlanInputs, size: ModelSize, tokens: StepTokens) -> Iterator[str]:
    """Memory of one GPU by component and phase."""
    config = run.config
    total = _gpu_bytes()
    sizes = estimate_bytes(config, size, run.needs_rollout, total)
    activations = activation_bytes(config, size, tokens)
    offloaded, gpu = offloaded_components(config), config.trainer.device != "cpu"
    kept = f"; up to {ALLOCATOR_SHARE - 1:.0%} more with what PyTorch's allocator keeps while there is room"
    if "gathered" not in sizes or config.worker.actor.model.lora_rank > 0:  # of an adapter there is little to gather
        kept = ""
    yield from memory_plan(sizes, offloaded, "GPU" if gpu else "worker")
    if activations is None:
        yield "activations: not estimated, no model of this size was measured"
        return
    yield f"activations of an update: about {activations / GIB:.1f} GiB more (scaled from a measured run)"
    resident = sum(sizes.get(component, 0.0) for component in ("weights", "gathered", "gradients", "scorer"))
    leaving = ("optimizer", "ref", "engine")
    resident += sum(sizes.get(component, 0.0) for component in leaving if component not in offloaded)
    if gpu and total is not None:
        fits = "fits" if resident + activations < total else "DOES NOT FIT"
        yield f"update: about {(resident + activations) / GIB:.0f} GiB of {total / GIB:.0f} GiB: {fits}{kept}"
    elif gpu:
        yield f"update: about {(resident + activations) / GIB:.0f} GiB on each GPU{kept}"


def _gpu_bytes() -> float | None:
    import torch

    return float(torch.cuda.mem_get_info(0)[1]) if torch.cuda.is_available() else None


def time_lines(run: PlanInputs, size: ModelSize, tokens: StepTokens, plan: RunPlan | None) -> Iterator[str]:
    """Seconds of a step by phase, estimated from a measured run."""
    trainer, worker = run.config.trainer, run.config.worker
    gpus, lora = trainer.nnodes * trainer.n_gpus_per_node, worker.actor.model.lora_rank > 0
    like = gpus, worker.rollout.tensor_parallel_size, lora, run.config.data.rollout_batch_size
    baseline = find_measured_run(run.name, size.label, *like) if trainer.device != "cpu" else None
    if baseline is None:
        yield "time: not known, nothing like it was measured"
        return
    seconds = estimate_seconds(run.config, size, tokens, baseline)
    step = sum(seconds.values())
    shown = ", ".join(f"{phase} {taken:.1f}" for phase, taken in seconds.items())
    hours = (
        f"; {plan.steps - plan.start_step} steps: {(plan.steps - plan.start_step) * step / 3600:.1f} h" if plan else ""
    )
    length = "" if run.is_supervised else " with responses at their limit"
    yield f"time: about {step:.1f} s a step{length} ({shown}){hours}"
    yield "      recomputation and offloading are not in it"
    scaled = "" if gpus == baseline.gpus else f"{gpus} GPU{'s' * (gpus > 1)}, from {baseline.gpus}: "
    yield f"      {scaled}estimated from {baseline.step_seconds} s on {baseline.gpus} {baseline.device}, measured by"
    yield f"      {baseline.command}"
    yield f"      ({baseline.versions}, {baseline.date})"


def disk_lines(config: Config, size: ModelSize, plan: RunPlan | None) -> Iterator[str]:
    """Bytes of the checkpoints."""
    components = checkpoint_bytes(config, size)
    one, trainer = sum(components.values()), config.trainer
    shown = ", ".join(f"{component} {taken / 1e9:.1f}" for component, taken in components.items())
    kept = 1 if trainer.save_freq < 1 else None
    if plan is not None:
        kept = sum(plan.saves(step) for step in range(plan.start_step + 1, plan.steps + 1))
    if trainer.save_limit > 0:
        kept = trainer.save_limit + 1 if kept is None else min(kept, trainer.save_limit + 1)
    all_of_them = f"; up to {kept} at a time, {kept * one / 1e9:.1f} GB" if kept is not None else ""
    folder = Path(trainer.save_checkpoint_path or ".")
    there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(there).free
    enough = " NOT ENOUGH" if (1 if kept is None else kept) * one > free else ""
    yield f"disk: a checkpoint takes {one / 1e9:.1f} GB ({shown}){all_of_them}; {free / 1e9:.0f} GB are free.{enough}"
    yield f"      in {os.path.relpath(folder)}"
