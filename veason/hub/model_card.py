"""The model card of a trained checkpoint: YAML for the Hub, then Markdown for people."""

from __future__ import annotations

from collections.abc import Sequence

from huggingface_hub import EvalResult, ModelCardData

from veason.hub.trained_checkpoint import CheckpointEvaluation, TrainedCheckpoint

# Identifiers that the Hub knows; another licence is `other` with a name of its own.
HUB_LICENSES = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "cc-by-nc-sa-4.0")
TASK = "video-text-to-text"
SHOWN_SETTINGS = ("sampled_frames", "keyframe_resize", "temperature", "tracker", "sam2_config", "seed")

BODY = """
# {name}

{base}, trained for video reasoning segmentation with Open Veason-R1: given frames of a video
and an expression, it reasons, chooses the keyframe that shows the target best, and answers with boxes there. SAM 2
turns the boxes into masks through the whole video.

## Use

```bash
hf download {repo_id} --local-dir {name}
veason predict clip.mp4 "the dog that is chased" --model {name} --sam2 sam2.1_hiera_large.pt
```

The weights are in the form of transformers: `AutoModelForImageTextToText.from_pretrained("{repo_id}")` loads them, and
`veason.prompts.build_messages` makes the prompt that they were trained with. An answer is
`<think>...</think><answer>{{"keyframe_timestamp": 3, "bbox_2d_list": [[x1, y1, x2, y2]]}}</answer>`.

## Training

{training}

## Evaluation

{evaluation}

## Limits

Scores hold for the benchmarks above only. Answers can be wrong, and masks follow wrong boxes. Check the results before
you rely on them.

## Licence and citation

{license}. The method is that of Gong et al., *Reinforcing Video Reasoning Segmentation to Think Before It Segments*,
CVPR 2026.
"""


def model_card(
    checkpoint: TrainedCheckpoint,
    repo_id: str,
    base_model: str,
    license: str,
    evaluations: Sequence[CheckpointEvaluation] = (),
) -> str:
    """The text of README.md.

    Args:
        repo_id: `owner/name` on the Hub.
        base_model: of the training, as on the Hub.
        license: an identifier of the Hub, or the name of another licence.
    """
    known = license.lower() in HUB_LICENSES
    name = repo_id.rpartition("/")[2]
    results = [
        EvalResult(
            task_type=TASK,
            task_name="Video reasoning segmentation",
            dataset_type=evaluation.benchmark,
            dataset_name=evaluation.benchmark,
            dataset_split=evaluation.split,
            metric_type=title.lower().replace(" ", "_"),
            metric_name=title,
            metric_value=round(value, 2),
        )
        for evaluation in evaluations
        for title, value in evaluation.scores.items()
    ]
    data = ModelCardData(
        base_model=base_model,
        license=license.lower() if known else "other",
        license_name=None if known else license,
        library_name="transformers",
        pipeline_tag=TASK,
        tags=["video-segmentation", "reasoning-segmentation", "grpo", "sam2"],
        model_name=name,
        eval_results=results or None,
    )
    body = BODY.format(
        name=name,
        repo_id=repo_id,
        base=base_model,
        license=f"Licence: {license}",
        training=training_text(checkpoint),
        evaluation="\n\n".join(map(evaluation_text, evaluations)) or "Not evaluated.",
    )
    return f"---\n{data.to_yaml()}\n---\n{body}"


def training_text(checkpoint: TrainedCheckpoint) -> str:
    """The recipe as a table."""
    if not checkpoint.recipe:
        return "The checkpoint's folder does not say how it was trained."
    steps = "" if checkpoint.step is None else f"{checkpoint.step} steps.\n\n"
    rows = (f"| `{key}` | {value} |" for key, value in checkpoint.recipe.items())
    return steps + "\n".join(["| key | value |", "| --- | --- |", *rows])


def evaluation_text(evaluation: CheckpointEvaluation) -> str:
    """One evaluation as a table."""
    settings = ", ".join(
        f"{key} {evaluation.settings[key]}" for key in SHOWN_SETTINGS if evaluation.settings.get(key) is not None
    )
    versions = ", ".join(f"{name} {value}" for name, value in evaluation.settings.get("versions", {}).items())
    rows = (f"| {title} | {value:.1f} |" for title, value in evaluation.scores.items())
    heading = f"{evaluation.benchmark}, {evaluation.split}, {evaluation.samples} expressions ({settings}):"
    return "\n".join([heading, "", "| | percent |", "| --- | ---: |", *rows, "", f"Versions: {versions}."])
