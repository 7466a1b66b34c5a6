"""Draws docs/pictures: a result of the toy models, each part of the reward on a toy answer, and the packing.

    python -m training_scripts.docs_pictures
    python -m training_scripts.docs_pictures --output pictures

The result is that of the toy models on the toy clip. The numbers in the other pictures are computed by `grpo_reward`
and `verl.models.packing`; masks are tracked by weights/toy_tracker. Colours are those of Okabe and Ito, which
colour-blind people tell apart.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.patches import Rectangle

from grpo_reward.parts import RewardInput, box_ious, frame_ious
from grpo_reward.reward_score import score_response
from grpo_reward.rules import find_rule
from veason.answers import format_answer
from veason.command_line import parse_arguments
from veason.data.examples import TrainingExample
from veason.inference.segmenter import Segmenter
from veason.toy.online_data import OnlineToyData
from veason.toy_assets import TOY_CLIP, TOY_EXPRESSION, toy_tracker_options
from veason.tracking import build_tracker
from veason.visualization.drawing import frame_strip, save_picture
from verl.models.packing import TokenizedGroup, make_segment_ids, make_segments

SEED, SIZE, KEYFRAME = 7, 240, 11  # a toy video with two targets whose visible area changes
SHIFTS = ((6, -8, 14, 6), (-10, 4, -6, 12))  # what the drawn answer is wrong by, in pixels
EXTRA = (150, 20, 200, 60)  # a box around nothing
PREDICTED, TRUE, OTHER, INK = "#e69f00", "#0072b2", "#cc79a7", "#222222"
DPI = 110
RESULT_HEIGHT = 348  # pixels


def scored_answer() -> tuple[TrainingExample, RewardInput]:
    """A toy example with an answer that is partly right, parsed and tracked as in training."""
    example = OnlineToyData("", 6, SIZE, still_ratio=0.0).example(0, SEED)
    ground_truth = example.ground_truth
    assert ground_truth is not None
    position = ground_truth.timestamps.index(KEYFRAME)
    true_boxes = ground_truth.boxes[position]
    boxes = [[round(side + by) for side, by in zip(box, shift)] for box, shift in zip(true_boxes, SHIFTS)]
    response = format_answer(f"At {KEYFRAME} s both are in view.", KEYFRAME, [*boxes, list(EXTRA)])
    rule = find_rule("video_match_keyframe_sft_sam_mod")
    reward_input = RewardInput(
        response, rule.parse(response), ground_truth, None, example.sample_id, example.expression
    )
    prompt = rule.tracker_prompt(reward_input)
    assert prompt is not None
    tracker = build_tracker("sam2", "cpu", **toy_tracker_options())
    frames = [np.asarray(image) for image in example.images]
    ((masks,),) = tracker.track_groups_on_device([(frames, [prompt])], (SIZE, SIZE))
    return example, replace(reward_input, masks=masks)


def draw_box(axes: Axes, box: list[float], colour: str, label: str = "", dashed: bool = False) -> None:
    x1, y1, x2, y2 = box
    style = "--" if dashed else "-"
    axes.add_patch(Rectangle((x1, y1), x2 - x1 + 1, y2 - y1 + 1, fill=False, color=colour, lw=2.2, ls=style))
    if label:
        axes.text(x1 + 2, y1 - 3, label, color="white", fontsize=9, bbox={"facecolor": colour, "pad": 1.5, "lw": 0})


def show(axes: Axes, picture: np.ndarray, title: str) -> None:
    axes.imshow(picture)
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])


def tint(picture: np.ndarray, mask: np.ndarray, colour: str) -> np.ndarray:
    out = picture / 255.0
    out[mask != 0] = 0.35 * out[mask != 0] + 0.65 * np.array(to_rgb(colour))
    return out


def format_picture(reward_input: RewardInput, value: float) -> plt.Figure:
    """The layout of an answer: a point for the tags, a point for the share of well-formed boxes."""
    figure, axes = plt.subplots(figsize=(8.8, 2.3))
    axes.axis("off")
    boxes = reward_input.response.partition("bbox_2d_list")[2].strip('": }</answer>\n')
    lines = [
        ("<think> ... </think>", TRUE, "the tags, in this order"),
        ("<answer>", TRUE, ""),
        (f'{{"keyframe_timestamp": {KEYFRAME},', INK, "one of the timestamps that were shown"),
        (f' "bbox_2d_list": {boxes}}}', PREDICTED, "each of four numbers"),
        ("</answer>", TRUE, ""),
    ]
    for row, (text, colour, note) in enumerate(lines):
        axes.text(0.0, 0.92 - 0.2 * row, text, family="monospace", fontsize=9, color=colour, transform=axes.transAxes)
        axes.text(0.8, 0.92 - 0.2 * row, note, fontsize=9, color=colour, transform=axes.transAxes)
    axes.set_title(
        f"format: tags 1 + well-formed boxes {reward_input.parsed.valid_box_fraction:.0f} = {value:.0f} of 2",
        fontsize=11,
    )
    return figure


def keyframe_picture(example: TrainingExample, reward_input: RewardInput, value: float) -> plt.Figure:
    """The target's area on each shown frame; the chosen one over the largest."""
    ground_truth = reward_input.ground_truth
    figure, axes = plt.subplots(2, len(ground_truth.timestamps), figsize=(8.4, 3.9), height_ratios=(3, 1))
    areas = [int(np.count_nonzero(mask)) for mask in ground_truth.masks]
    for column, (image, mask, timestamp, area) in enumerate(
        zip(example.images, ground_truth.masks, ground_truth.timestamps, areas)
    ):
        chosen = timestamp == KEYFRAME
        show(axes[0, column], tint(np.asarray(image), mask, TRUE), f"{timestamp} s{', chosen' if chosen else ''}")
        bar = axes[1, column]
        bar.barh([0], [area], color=PREDICTED if chosen else TRUE)
        bar.set(xlim=(0, max(areas)), yticks=[], xticks=[])
        bar.set_xlabel(f"{area} pixels", fontsize=9)
        bar.spines[:].set_visible(False)
    chosen = areas[ground_truth.timestamps.index(KEYFRAME)]
    figure.suptitle(
        f"keyframe: area on the chosen frame over the largest, {chosen} / {max(areas)} = {value:.2f}", fontsize=11
    )
    return figure


def spatial_picture(example: TrainingExample, reward_input: RewardInput, value: float) -> plt.Figure:
    """Predicted and ground-truth boxes on the chosen frame, matched one to one."""
    position = reward_input.ground_truth.timestamps.index(KEYFRAME)
    predicted, true = reward_input.parsed.boxes, reward_input.ground_truth.boxes[position]
    assert predicted is not None
    figure, axes = plt.subplots(figsize=(5.2, 4.4))
    ious = box_ious(predicted, np.array(true))
    for number, box in enumerate(true):
        draw_box(axes, box, TRUE, "true" if number == 0 else "")
    for box, row in zip(predicted.tolist(), ious):
        matched = row.max() > 0
        draw_box(axes, box, PREDICTED, f"IoU {row.max():.2f}" if matched else "no match: 0", dashed=True)
    sums = " + ".join(f"{row.max():.2f}" for row in ious)
    show(axes, np.asarray(example.images[position]), "")
    axes.set_title(f"spatial: ({sums}) / {len(predicted)} boxes = {value:.2f}", fontsize=11, pad=14)
    return figure


def consistency_picture(example: TrainingExample, reward_input: RewardInput, value: float) -> plt.Figure:
    """Masks tracked from the matched boxes, and the ground-truth ones, on every shown frame."""
    tracked = (
        np.asarray(reward_input.masks.cpu() if isinstance(reward_input.masks, torch.Tensor) else reward_input.masks)
        != 0
    )
    ground_truth = reward_input.ground_truth
    figure, axes = plt.subplots(1, len(ground_truth.timestamps), figsize=(8.4, 2.8))
    for axis, image, mask, true, iou in zip(
        axes, example.images, tracked, ground_truth.masks != 0, frame_ious(tracked, ground_truth.masks)
    ):
        picture = np.asarray(image) / 255.0
        for region, colour in ((mask & true, TRUE), (mask & ~true, PREDICTED), (true & ~mask, OTHER)):
            picture[region] = 0.3 * picture[region] + 0.7 * np.array(to_rgb(colour))
        show(axis, picture, f"IoU {float(iou):.2f}")
    for text, colour, at in (("both", TRUE, 0.28), ("tracked only", PREDICTED, 0.44), ("true only", OTHER, 0.66)):
        figure.text(at, 0.02, f"■ {text}", color=colour, fontsize=10)
    figure.suptitle(f"consistency: mean IoU of tracked and ground-truth masks = {value:.2f}", fontsize=11)
    return figure


def packing_picture() -> plt.Figure:
    """Which tokens a token sees when a group is one packed sequence, and what the same group costs unpacked."""
    prompt, responses = 24, (9, 6, 11, 7)
    segments = make_segments([TokenizedGroup(torch.zeros(prompt), [torch.zeros(length) for length in responses])], 1)
    segment, prompt_segment = (values.numpy() for values in make_segment_ids(segments))
    length = prompt + sum(responses)
    rows, columns = np.arange(length)[:, None], np.arange(length)[None]
    own = (segment[:, None] == segment[None]) & (columns <= rows)
    shared = (prompt_segment[:, None] == segment[None]) & ~own & (columns < rows)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.8, 4.4), width_ratios=(1.15, 1))
    left.imshow(own + 2 * shared, cmap=ListedColormap(["#f2f2f2", TRUE, PREDICTED]), vmin=0, vmax=2)
    starts = np.cumsum([0, prompt, *responses])
    names = ["prompt", *(f"response {number}" for number in range(len(responses)))]
    middles = (starts[:-1] + starts[1:] - 1) / 2
    left.set_yticks(middles, names, fontsize=9)
    left.set_xticks(middles, ["prompt", *(f"r{number}" for number in range(len(responses)))], fontsize=9)
    for start in starts[1:-1]:
        left.axhline(start - 0.5, color="white", lw=1.2)
        left.axvline(start - 0.5, color="white", lw=1.2)
    left.set_title(f"one packed sequence: {length} tokens", fontsize=11)
    for text, colour, at in (("own segment, up to itself", TRUE, 0.16), ("the group's prompt", PREDICTED, 0.4)):
        figure.text(at, 0.015, f"■ {text}", color=colour, fontsize=9)
    total = 0
    for row, size in enumerate(responses):
        right.barh(row, prompt, color=PREDICTED, edgecolor="white")
        right.barh(row, size, left=prompt, color=TRUE, edgecolor="white")
        total += prompt + size
    right.set_yticks(range(len(responses)), [f"sequence {row}" for row in range(len(responses))], fontsize=9)
    right.invert_yaxis()
    right.set_title(f"one sequence a response: {total} tokens", fontsize=11)
    figure.text(0.62, 0.015, "prompt and images again for each response", fontsize=9)
    right.spines[:].set_visible(False)
    right.set_xticks([])
    return figure


def result_picture(segmenter: Segmenter) -> np.ndarray:
    """The toy clip's keyframe, its middle and its end under the overlay, uint8 [H, W, 3] RGB."""
    result = segmenter.segment(TOY_CLIP, TOY_EXPRESSION)
    overlay, keyframe = result.overlay(), result.prediction.keyframe
    if keyframe is None:
        raise SystemExit(f"docs_pictures: the toy models found nothing: {result.prediction.outcome}")
    shown = [overlay[index] for index in (keyframe, len(overlay) // 2, len(overlay) - 2)]
    gap = np.full((len(shown[0]), 8, 3), 255, np.uint8)
    return frame_strip([part for picture in shown for part in (picture, gap)][:-1], height=RESULT_HEIGHT)


def write_pictures(output: Path) -> list[Path]:
    """Writes all pictures but the result; returns their files."""
    mpl.use("agg")
    torch.manual_seed(0)
    example, reward_input = scored_answer()
    scores = score_response(find_rule("video_match_keyframe_sft_sam_mod"), reward_input).parts
    figures = {
        "format": format_picture(reward_input, scores["format"]),
        "keyframe": keyframe_picture(example, reward_input, scores["keyframe"]),
        "spatial": spatial_picture(example, reward_input, scores["spatial"]),
        "consistency": consistency_picture(example, reward_input, scores["consistency"]),
        "packing": packing_picture(),
    }
    output.mkdir(parents=True, exist_ok=True)
    files = []
    for name, figure in figures.items():
        figure.tight_layout(rect=(0, 0.04, 1, 1))
        files.append(output / f"{name}.png")
        figure.savefig(files[-1], dpi=DPI, metadata={"Software": None}, pil_kwargs={"optimize": True})
        plt.close(figure)
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/pictures"), help="the folder (docs/pictures)")
    output = parse_arguments(parser).output
    result = save_picture(output / "result.png", result_picture(Segmenter.from_pretrained()))
    for file in (*write_pictures(output), result):
        print(file)


if __name__ == "__main__":
    main()
