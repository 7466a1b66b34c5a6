"""What `benchmarks.grpo_step` prints: phases against physical limits, and every metric beside its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from statistics import fmean

from transformers import AutoConfig

from verl.config import Config
from verl.metric_types import Metrics
from verl.models.flops import ModelFlops
from verl.trainer.throughput import device_peak

# Memory bandwidth in bytes/s by a substring of the device's name, from the vendors' data sheets; first match counts.
BANDWIDTHS = {"B200": 8.0e12, "H200": 4.8e12, "H100": 3.35e12, "H800": 3.35e12, "A100": 2.0e12}
MEMORY_METRICS = tuple(f"memory/peak_{phase}_gib" for phase in ("rollout", "ref", "old_log_prob", "update"))
PHASES = (
    "rollout",
    "rollout/weight_sync",
    "rollout/generate",
    "score_wait",
    "ref",
    "old_log_prob",
    "advantage",
    "update",
)
LARGE_CARD, SMALL_CARD = (12.5, 140.0), (14.0, 75.0)  # targets of a step of 3B: seconds, GiB
VERL_PHASES = (  # what, ours, verl's
    ("weights to vLLM", "rollout/weight_sync", "update_weights"),
    ("generation", "rollout/generate", "gen"),
    ("old log-probabilities", "old_log_prob", "old_log_prob"),
    ("reference", "ref", "ref"),
    ("advantages", "advantage", "adv"),
    ("update", "update", "update_actor"),
    ("whole step", "step", "step"),
)
TOLERANCES = {
    "actor/loss": 1e-3,
    "actor/entropy": 1e-3,
    "actor/grad_norm": 1e-2,
}  # relative tolerance between two runs, bf16 compute


@dataclass(frozen=True)
class HardwareLimits:
    """The seconds that a step's arithmetic and memory traffic would take at the devices' full rates; 0 where these are
    not known.

    Attributes:
        prompts: forward pass over the prompts alone, images included, by the bf16 peak.
        decode: reading the weights, each prompt's cache once for its group, and each response's own cache once per
            generated token, by the memory bandwidth.
        forward: one packed forward pass over all groups, by the bf16 peak.
    """

    prompts: float
    decode: float
    forward: float

    @classmethod
    def of(
        cls, flops: ModelFlops, device: str, config: Config, prompt: int, images: Sequence[tuple[int, int]]
    ) -> HardwareLimits:
        """Of a run on `device`s with prompts of `prompt` tokens and images of these heights and widths."""
        rollout, count = config.worker.rollout, config.data.rollout_batch_size
        peak = device_peak(device)
        bandwidth = next((rate for substring, rate in BANDWIDTHS.items() if substring in device), None)
        if peak is None or bandwidth is None:
            return NO_LIMITS
        gpus = config.trainer.n_gpus_per_node
        text = AutoConfig.from_pretrained(config.worker.actor.model.model_path or "").text_config
        head_dim = text.hidden_size // text.num_attention_heads
        cached = 2 * 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim  # bytes a token
        weights = flops.per_token + flops.per_label  # 2 FLOPs and 2 bytes a weight
        sequences = count * rollout.n
        tokens = count * prompt + sequences * rollout.response_length / 2  # in the cache, on average
        read = rollout.response_length * (weights + cached * tokens)
        responses = [rollout.response_length] * rollout.n
        return cls(
            prompts=count * flops.group_flops(prompt, [], images) / (peak * gpus),
            decode=read / (bandwidth * gpus),
            forward=count * flops.group_flops(prompt, responses, images) / (peak * gpus),
        )


NO_LIMITS = HardwareLimits(0.0, 0.0, 0.0)


def phase_table(name: str, metrics: Metrics, limits: HardwareLimits = NO_LIMITS) -> None:
    """The seconds of each phase, and what they would be at the device's full rate."""
    share = metrics.get("share", 1.0)
    ideal = {
        "rollout/generate": (
            limits.prompts + limits.decode,
            f"prompts {limits.prompts:.1f} s at the bf16 peak, decode {limits.decode:.1f} s",
        ),
        "ref": (limits.forward, "one forward pass at the bf16 peak"),
        "update": (3 * limits.forward, "three at the bf16 peak"),
    }
    scaled = f" (measured on {share:.0%} of the prompts)" if share != 1.0 else ""
    print(f"\n{name}{scaled}\n| phase | seconds | share of the physical limit | |\n| --- | --- | --- | --- |")
    for phase in PHASES:
        seconds = metrics.get(f"timing_s/{phase}")
        if seconds is None:
            continue
        limit, what = ideal.get(phase, (0.0, ""))
        print(f"| {phase} | {seconds:.2f} | {f'{limit / seconds:.0%}' if limit else ''} | {what if limit else ''} |")
    print(f"| whole step | {metrics['timing_s/step']:.2f} | | |")
    rates = {name.removeprefix("perf/"): value for name, value in metrics.items() if name.startswith("perf/")}
    print(", ".join(f"{name} {value:.3g}" for name, value in rates.items()))
    print("peak GiB: " + ", ".join(f"{name[12:-4]} {metrics[name]:.1f}" for name in MEMORY_METRICS if name in metrics))
    if "rollout/log_prob_gap" in metrics:
        print(f"vLLM's log-probabilities differ from the actor's by {metrics['rollout/log_prob_gap']:.1e} a token")
    print(flush=True)


def peak_gib(metrics: Metrics) -> float:
    """The most memory of a step's phases, GiB; 0 where it was not measured."""
    return max((float(metrics[name]) for name in MEMORY_METRICS if name in metrics), default=0.0)


def print_table(found: dict[str, Metrics], device: str) -> None:
    """Every metric of one GPU, as far as it was measured, with its target."""
    ours, rows = found.get("ours", {}), []
    if ours:
        most_seconds, most_gib = LARGE_CARD if "H200" in device else SMALL_CARD
        rows.append(table_row("one step of ours, s", ours["timing_s/step"], most_seconds, "at most"))
        rows.append(table_row("peak memory, GiB", peak_gib(ours), most_gib, "at most"))
        rows.append(
            table_row("through the object store, MB a prompt", ours["ray/transfer_mb_per_prompt"], 1, "at most")
        )
    if "published" in found:
        slower = found["published"]["timing_s/step"] / ours["timing_s/step"]
        rows.append(table_row("the published schedule, times as long", slower, 4, "at least"))
    for name, what in (
        ("timing_s/step", "TRL, times as long"),
        ("timing_s/over", "TRL, times as long, or more: its step did not end"),
    ):
        if name in found.get("trl", {}):
            rows.append(table_row(what, found["trl"][name] / found["small"]["timing_s/step"], 2, "at least"))
    if found.get("verl"):
        slower = found["verl"]["timing_s/step"] / found["no_reward"]["timing_s/step"]
        rows.append(table_row("verl, times as long, no reward", slower, 3, "at least"))
    print_rows(rows, device)


def print_verl_comparison(ours: Metrics, verl: Metrics) -> None:
    """The phases of a step without a reward, ours beside verl's; nothing where verl's did not end."""
    if not verl:
        return
    print("\n| phase | ours, s | verl, s | |\n| --- | ---: | ---: | ---: |")
    for what, own, theirs in VERL_PHASES:
        seconds = [each.get(f"timing_s/{name}") for each, name in ((ours, own), (verl, theirs))]
        ratio = f"{seconds[1] / seconds[0]:.1f} x" if seconds[0] and seconds[1] else ""
        print(f"| {what} | {' | '.join('' if each is None else f'{each:.2f}' for each in seconds)} | {ratio} |")
    print(flush=True)


@dataclass(frozen=True)
class ScalingRun:
    """The steps of a job on so many GPUs, the one that compiles first."""

    gpus: int
    prompts: int
    steps: list[Metrics]

    @property
    def throughput(self) -> float:
        """Prompts a second, without the first step."""
        return self.prompts / fmean(step["timing_s/step"] for step in self.steps[1:])


def print_scaling(runs: Sequence[ScalingRun], device: str) -> None:
    """Throughput of further runs over the first's (target: 85 % of linear), and losses where the batch is the same."""
    first, rows = runs[0], []
    for run in runs[1:]:
        if run.gpus != first.gpus:
            what = f"throughput of {run.gpus} GPUs with {run.prompts} prompts, times that of {first.gpus}"
            rows.append(table_row(what, run.throughput / first.throughput, 0.85 * run.gpus / first.gpus, "at least"))
        for name, tolerance in TOLERANCES.items() if run.prompts == first.prompts else ():
            pairs = [(a[name], b[name]) for a, b in zip(first.steps, run.steps)]
            print(f"{run.gpus} GPUs, {name}: " + ", ".join(f"{a:.6g} and {b:.6g}" for a, b in pairs))
            worst = max(abs(a - b) / max(abs(a), 1e-12) for a, b in pairs)
            rows.append(table_row(f"{run.gpus} GPUs, {name}, relative difference", worst, tolerance, "at most"))
    print_rows(rows, device)


def table_row(what: str, value: float, target: float, side: str) -> str:
    met = value <= target if side == "at most" else value >= target
    return f"| {what} | {value:.3g} | {side} {target:g} | {'met' if met else 'NOT MET'} |"


def print_rows(rows: list[str], device: str) -> None:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "ray"))
    print(f"\n{device}, {packages}; the targets are those of 3B\n")
    print("\n".join(["| what | measured | target | |", "| --- | --- | --- | --- |", *rows]), flush=True)
