"""Trains the tiny SAM 2 of the toy world from random weights within a given time.

    python -m veason.toy.train_tracker --output tracker --minutes 8

Training starts with single frames (box to mask), then clips of 4 and of 8 frames, tracked in both directions through
SAM 2's own memory. Clips are rendered on the training device. The saved weights are an exponential moving average in
half precision, evaluated with the project's own tracker on held-out toy videos.

Writes `sam2_tiny.yaml`, `sam2_tiny.pt`, `sam2_tiny.safetensors`, `training.png`, `metrics.json` and a model card,
`README.md`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from veason.command_line import HelpFormatter, parse_arguments
from veason.toy.tiny_tracker import TrackerSize, build_tracker_model, write_tracker_config
from veason.toy.tracker_eval import evaluate_tracker, validation_videos
from veason.toy.tracker_loss import DecoderHook, TrackerLoss, clip_loss, track_clips
from veason.toy.training_clips import random_clips
from veason.tracking.sam2.tracker import Sam2Tracker
from veason.visualization.curves import save_curves


@dataclass(frozen=True)
class TrainingStage:
    """A training stage: the share of the time at which it ends, frames per clip, and clips per batch by device."""

    until: float
    frames: int
    gpu_clips: int
    cpu_clips: int


STAGES = (TrainingStage(0.25, 1, 160, 6), TrainingStage(0.55, 4, 64, 2), TrainingStage(1.0, 8, 40, 1))
TARGETS = 3  # objects tracked in each clip
LEARNING_RATE, WARM_UP, WEIGHT_DECAY, MAX_NORM = 5e-4, 100, 0.01, 1.0
LONGEST_VIDEO = 24  # frames; SAM 2 scales the distances of its pointers by the length of the video


class WeightEMA:
    """An exponential moving average of the weights."""

    def __init__(self, model: SAM2Base) -> None:
        self.weights = [weight.detach().clone() for weight in model.parameters()]
        self.steps = 0

    @torch.no_grad()
    def update(self, model: SAM2Base) -> None:
        self.steps += 1
        decay = min(0.998, self.steps / (self.steps + 10))
        torch._foreach_lerp_(self.weights, [weight.detach() for weight in model.parameters()], 1 - decay)

    def state_dict(self, model: SAM2Base) -> dict[str, Tensor]:
        """The model's state dict with the averaged weights, in half precision, on the CPU."""
        names = (name for name, _ in model.named_parameters())
        state = {**model.state_dict(), **dict(zip(names, self.weights))}
        return {name: value.half().cpu().contiguous() for name, value in state.items()}


@dataclass
class LossHistory:
    """Moving averages over about 30 steps, and the history for the plot."""

    means: dict[str, float] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)

    def update(self, loss: TrackerLoss) -> None:
        for name, value in (("loss", loss.total), ("IoU prompted", loss.prompted_iou), ("IoU others", loss.other_iou)):
            number = float(value.detach())
            if math.isfinite(number):  # a clip of one frame has no others
                self.means[name] = self.means.get(name, number) + (number - self.means.get(name, number)) / 30
            self.history.setdefault(name, []).append(number)

    @property
    def line(self) -> str:
        return "  ".join(f"{name} {value:.3f}" for name, value in self.means.items())


class TrackerTraining:
    """The model, its optimizer and the time budget of one training run.

    Args:
        seconds: training time, without evaluation.
        seed: of the initial weights and of every clip.
    """

    def __init__(self, size: TrackerSize, seconds: float, seed: int, device: torch.device) -> None:
        self.size, self.seconds, self.device = size, seconds, device
        self.model = build_tracker_model(size, seed).to(device).train()
        self.hook = DecoderHook(self.model)
        fused = device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=fused
        )
        self.average = WeightEMA(self.model)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.rng = random.Random(seed)
        self.losses, self.steps, self.elapsed = LossHistory(), 0, 0.0

    @property
    def progress(self) -> float:
        return self.elapsed / self.seconds

    def run_stage(self, number: int, report_every: float) -> None:
        """Trains until the stage's share of the time is over; prints progress every `report_every` seconds."""
        stage, reported = STAGES[number], 0.0
        while self.progress < stage.until:
            start = time.perf_counter()
            loss = self.step(stage)
            self.losses.update(loss)  # synchronizes with the device, so the measured time is complete
            self.elapsed += time.perf_counter() - start
            if self.elapsed - reported >= report_every:
                reported = self.elapsed
                remaining = self.seconds - self.elapsed
                print(
                    f"stage {number + 1}, clips of {stage.frames}, step {self.steps}: {self.losses.line}  "
                    f"{remaining:.0f} s left",
                    flush=True,
                )

    def step(self, stage: TrainingStage) -> TrackerLoss:
        """Renders a batch of clips, tracks them, and takes one optimizer step."""
        count = stage.gpu_clips if self.device.type == "cuda" else stage.cpu_clips
        prompted = self.rng.randrange(stage.frames)
        clips = random_clips(count, stage.frames, prompted, self.size.image_size, self.generator, targets=TARGETS)
        boxes = jitter_boxes(clips.boxes, self.size.image_size, self.generator)
        length = self.rng.randint(max(stage.frames, 2), LONGEST_VIDEO)
        outputs = track_clips(self.model, self.hook, clips.frames, boxes, prompted, length)
        loss = clip_loss(outputs, clips, prompted, self.balance, token=self.rng.randint(1, 3))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.steps, self.progress)
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_NORM)
        self.optimizer.step()
        self.average.update(self.model)
        self.steps += 1
        return loss

    @property
    def balance(self) -> float:
        """Class balance of `clip_loss`: 1 up to a mean IoU of 0.6 on prompted frames, falling to 0 at 0.85."""
        return min(1.0, max(0.0, (0.85 - self.losses.means.get("IoU prompted", 0.0)) / 0.25))

    def save(self, output: Path) -> None:
        """Writes the averaged weights as `.pt` for sam2's builder and as safetensors."""
        state = self.average.state_dict(self.model)
        torch.save({"model": state}, output / "sam2_tiny.pt")
        save_file(state, output / "sam2_tiny.safetensors")


def learning_rate(step: int, progress: float) -> float:
    """Linear warm-up over 100 steps or 5 % of the time, whichever is shorter, then cosine decay to 2 %."""
    warmup = min(1.0, max((step + 1) / WARM_UP, 20 * progress))
    return LEARNING_RATE * warmup * (0.02 + 0.49 * (1 + math.cos(math.pi * min(progress, 1.0))))


def jitter_boxes(boxes: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Moves each side of half of the boxes [B, M, 4] by up to 8 % of the box, like a policy's errors."""
    extent = (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2)
    noise = 2 * torch.rand(boxes.shape, generator=generator, device=boxes.device) - 1
    exact = torch.rand(boxes.shape[:2], generator=generator, device=boxes.device) < 0.5
    return torch.where(exact.unsqueeze(-1), boxes, (boxes + 0.08 * extent * noise).clamp(0, side - 1))


def evaluate_weights(output: Path, device: torch.device, videos: list) -> dict[str, float]:
    """The metrics of the weights in a folder, loaded and run as the pipeline does."""
    tracker = Sam2Tracker.from_files(output / "sam2_tiny.yaml", output / "sam2_tiny.safetensors", device, max_frames=32)
    return evaluate_tracker(tracker, videos)


def write_card(output: Path, metrics: dict, parameters: int) -> None:
    """Writes the model card, `README.md`: command, commit and metrics of the weights."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    size = (output / "sam2_tiny.safetensors").stat().st_size / 1e6
    names = {
        "prompted": "prompted frame",
        "before": "five frames before",
        "after": "five frames after",
        "within": "all frames up to five away",
        "reappeared": "five frames away, not visible in between",
    }
    rows = "\n".join(f"| {text} | {metrics[name]:.3f} |" for name, text in names.items() if name in metrics)
    output.joinpath("README.md").write_text(
        f"""# A tiny SAM 2 for the toy world

A SAM 2.1 of {parameters / 1e6:.1f} million parameters at {metrics["image_size"]} x {metrics["image_size"]} pixels
({size:.1f} MB in half precision), built from the `sam2` package's own classes by `sam2_tiny.yaml` and trained from
random weights on rendered shapes. It takes boxes as prompts and works on toy videos only.

Mean IoU over {metrics["tracks"]} objects of {metrics["videos"]} held-out toy videos, occlusions included
(1 where object and mask are both empty):

| frame | mean IoU |
| --- | --- |
{rows}

Made by `{metrics["command"]}`
at commit {commit.stdout.strip() or "unknown"}: {metrics["steps"]} steps
in {metrics["minutes"]:.1f} minutes on {metrics["device"]}.
`training.png` shows the training curves, `metrics.json` the metrics.

Licence: Apache-2.0. No third-party image or weight was used.
""",
        encoding="utf-8",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--output", required=True, help="folder of weights and configuration")
    parser.add_argument("--minutes", type=float, default=8.0, help="training time")
    parser.add_argument("--seed", type=int, default=0, help="of weights and clips")
    parser.add_argument(
        "--image_size",
        type=int,
        default=TrackerSize.image_size,
        help="side of the image that the encoder sees, in pixels",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda or cpu")
    parser.add_argument("--videos", type=int, default=48, help="held-out videos of the evaluation")
    parser.add_argument("--report_every", type=float, default=5.0, help="seconds between progress lines")
    options = parse_arguments(parser)
    device, output = torch.device(options.device), Path(options.output)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    size = TrackerSize(image_size=options.image_size)
    write_tracker_config(output, size)
    training = TrackerTraining(size, 60 * options.minutes, options.seed, device)
    parameters = sum(weight.numel() for weight in training.model.parameters())
    print(f"{parameters / 1e6:.2f} million parameters on {device}, {options.minutes:g} minutes", flush=True)
    videos = validation_videos(options.videos)
    for number in range(len(STAGES)):
        training.run_stage(number, options.report_every)
        training.save(output)
        last = number == len(STAGES) - 1
        metrics = evaluate_weights(output, device, videos if last else videos[: max(1, len(videos) // 6)])
        subset = "all" if last else "some"
        print(f"after stage {number + 1}, on {subset} held-out videos: {json.dumps(metrics)}", flush=True)
    card = {
        **metrics,
        "videos": len(videos),
        "image_size": size.image_size,
        "steps": training.steps,
        "minutes": training.elapsed / 60,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU",
        "command": "python -m veason.toy.train_tracker " + shlex.join(sys.argv[1:]),
    }
    (output / "metrics.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    save_curves(
        output / "training.png", training.losses.history, "Tiny SAM 2 on toy clips: 1, 4, then 8 frames", smooth=50
    )
    write_card(output, card, parameters)


if __name__ == "__main__":
    main()
