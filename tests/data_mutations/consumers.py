"""What reads a data set: training data, the teacher, sampling, the audit, and evaluation with its scores.

Each returns an `Outcome`. An exception other than the project's own errors leaves a consumer as it is raised.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.evaluation_folder import EvaluationFolder
from eval.evaluation_options import EvaluateConfig
from eval.evaluation_worker import EvaluationWorker
from eval.mask_scoring import scores_to_json
from eval.score_table import summarize
from tests.scoring import score_benchmark
from tests.veason.scripted_parts import BoxTracker
from training_data_construction import data_sampling, seed_cot_generation
from veason.answers import format_answer
from veason.audit import command as audit_command
from veason.data import find_benchmark, open_benchmark
from veason.data.examples import TrainingExample
from veason.data.training import build_training_data
from veason.errors import DataError
from veason.inference.segmenter import Segmenter

# What training and the teacher read: an annotation file or a split.
TRAINED = {
    "revos": "train",
    "reasonvos": "test",
    "refdavis17": "valid",
    "mevis": "valid_u",
    "vicas": "val",
    "cot": "cot.json",
}
SIDE, SEEDS = 56, 8  # of the frames; so many seeds show every frame of a video at least once


@dataclass
class Outcome:
    """What became of a data set.

    Attributes:
        error: the message that ended it; None when it went through.
        refused: sample id -> message, of the samples that were refused or skipped.
        results: sample id -> digest of what was made of it.
        ground_truths: sample id -> part of it, such as a frame -> digest of the ground truth.
        findings: the audit's, as written to findings.jsonl.
        printed: on standard output and standard error.
    """

    error: str | None = None
    refused: dict[str, str] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    ground_truths: dict[str, dict[Any, str]] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    printed: str = ""


@contextlib.contextmanager
def captured(outcome: Outcome) -> Iterator[None]:
    """Keep what is printed as the bytes that a UTF-8 terminal gets, and what is logged."""
    buffer = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    handler = logging.StreamHandler(buffer)
    logging.getLogger().addHandler(handler)
    try:
        with contextlib.redirect_stdout(buffer), contextlib.redirect_stderr(buffer):
            yield
    finally:
        logging.getLogger().removeHandler(handler)
        outcome.printed = buffer.buffer.getvalue().decode()  # type: ignore[attr-defined]


def digest(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(repr, parts)).encode()).hexdigest()[:16]


def ground_truth_by_frame(example: TrainingExample) -> dict[int, str]:
    """Frame -> digest of its boxes and its mask: which frames a seed shows depends on the sample's number."""
    assert example.ground_truth is not None
    parts = zip(example.ground_truth.timestamps, example.ground_truth.boxes, example.ground_truth.masks, strict=True)
    return {time: digest(boxes, mask.tobytes()) for time, boxes, mask in parts}


def shown(example: TrainingExample) -> str:
    """Digest of what is shown: without pixels, which another file format may round otherwise, and choice of frames."""
    question = example.messages[-1]["content"][-1]
    return digest(question, example.response, {image.size for image in example.images})


def section(layout: str, root: Path) -> dict[str, Any]:
    """The `data` section of a configuration."""
    shared: dict[str, Any] = {"name": layout, "train_files": root, "keyframe_resize": SIDE, "sampled_frames": 4}
    return shared | {"meta_file": TRAINED[layout]}


def train(layout: str, root: Path, on_bad_sample: str = "raise", exclude: Path | None = None) -> Outcome:
    """Load the training data and build every example with several seeds."""
    outcome = Outcome()
    with captured(outcome):
        try:
            data = build_training_data(**section(layout, root), on_bad_sample=on_bad_sample, exclude=exclude)
        except DataError as error:
            outcome.error = str(error)
            return outcome
        for index in range(len(data)):
            try:
                examples = [data.example(index, seed) for seed in range(SEEDS)]
                messages, sizes = data.messages_and_sizes(index, 0)
            except DataError as error:
                outcome.refused[data.sample_id(index)] = str(error)
                continue
            assert messages and len(sizes) == len(examples[0].images) > 0
            if {example.sample_id for example in examples} == {data.sample_id(index)}:
                outcome.results[data.sample_id(index)] = shown(examples[0])
                for example in examples:
                    outcome.ground_truths.setdefault(example.sample_id, {}).update(ground_truth_by_frame(example))
        outcome.refused |= data.skipped_samples
        for name in data.skipped_samples:
            outcome.results.pop(name, None)
    return outcome


class Reasoner:
    """A teacher in this process."""

    size = None

    def __init__(self, root: str) -> None:
        pass

    def reason(self, sample: Any, keyframe: int, indices: list[int]) -> str:
        return f"Step 1: It moves to the right.\nStep 2: At {keyframe} it is large.\nStep 3: It is in the upper half."


def teach(layout: str, root: Path, output: Path, on_bad_sample: str = "raise") -> Outcome:
    """The whole command with a teacher in this process."""
    outcome = Outcome()
    line = ["--data_root", root, "--benchmark", layout, "--output", output, "--teacher", f"{__name__}:Reasoner"]
    line += ["--keyframe_resize", SIDE, "--on_bad_sample", on_bad_sample, "--workers", 2, "--max_per_video", 20]
    line += ["--input_json", TRAINED[layout]]
    with captured(outcome):
        status = seed_cot_generation.main([str(word) for word in line])
    if status:
        outcome.error = last_line(outcome.printed) if status == 1 else None
        outcome.refused = {"?": outcome.printed}
    if (output / "cot_train.json").exists():
        for record in json.loads((output / "cot_train.json").read_text(encoding="utf-8")):
            outcome.ground_truths[record["sample_id"]] = {"": digest(record["frame_ids"], record["solution"])}
            outcome.results[record["sample_id"]] = digest(record["conversation"])
    return outcome


def sample(root: Path, output: Path) -> Outcome:
    """Draw a subset, of ReVOS alone."""
    outcome = Outcome()
    line = ["--input_json", root / "meta_expressions_train_.json", "--output_json", output, "--target_size", 100]
    with captured(outcome):
        try:
            data_sampling.main([str(word) for word in line])
        except SystemExit as error:
            outcome.error = str(error)
    return outcome


def audit(layout: str, root: Path, output: Path) -> Outcome:
    """The audit's command; `refused` is what exclude.txt lists."""
    outcome = Outcome()
    with captured(outcome):
        status = audit_command.main([str(root), "--benchmark", layout, "--output", str(output), "--pictures", "2"])
    if status == 2:
        outcome.error = last_line(outcome.printed)
        return outcome
    lines = (output / "findings.jsonl").read_text(encoding="utf-8").splitlines()
    outcome.findings = [json.loads(line) for line in lines]
    for line in (output / "exclude.txt").read_text(encoding="utf-8").splitlines():
        name, _, why = line.partition("  # ")
        outcome.refused[name] = why
    assert status == (1 if outcome.refused else 0)
    return outcome


class BoxPolicy:
    """Answers every question with one box."""

    def generate(self, questions: list[Any]) -> list[str]:
        return [format_answer("", 0, [[5, 5, 30, 30]]) for _ in questions]


def evaluate(layout: str, root: Path, output: Path) -> Outcome:
    """Open, segment and score every sample of the main split."""
    outcome = Outcome()
    config = EvaluateConfig("none", str(root), str(output), benchmark=layout, keyframe_resize=SIDE)
    with captured(outcome):
        try:
            samples = open_benchmark(layout, root).samples
            segmenter = Segmenter(BoxPolicy(), BoxTracker(), size=SIDE)  # type: ignore[arg-type]
            folder, worker = EvaluationFolder(output), EvaluationWorker(config, 0, segmenter)
            folder.begin({"benchmark": layout})
            worker.run(range(len(samples)))
            folder.finish(sample.sample_id for sample in samples)
            scores = score_benchmark(layout, root, None, output, processes=1)
            summarize(find_benchmark(layout), scores)
        except DataError as error:
            outcome.error = str(error)
            return outcome
    for score in scores_to_json(scores):
        outcome.ground_truths[score["sample_id"]] = {"": digest(score["J"], score["F"])}
        outcome.results[score["sample_id"]] = digest(score["type_id"])
    return outcome


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else ""


def consume(layout: str, root: Path, scratch: Path) -> Iterator[tuple[str, Callable[[], Outcome]]]:
    """Every consumer of a layout: (name, call). What skips bad samples runs where there is one."""
    done: dict[str, Outcome] = {}
    layout = "refdavis17" if layout == "visa" else layout  # with masks in a pickle

    def kept(name: str, call: Callable[[], Outcome]) -> tuple[str, Callable[[], Outcome]]:
        def run() -> Outcome:
            done[name] = call()
            return done[name]

        return name, run

    def refused(name: str) -> bool:
        return name not in done or bool(done[name].error or done[name].refused)

    if layout != "cot":
        yield kept("audit", lambda: audit(layout, root, scratch / "audit"))
    yield kept("train", lambda: train(layout, root))
    if refused("train"):
        yield kept("train_skipping", lambda: train(layout, root, "skip"))
    if layout == "cot":
        return
    if refused("audit") and (scratch / "audit" / "exclude.txt").exists():
        yield kept("train_excluding", lambda: train(layout, root, exclude=scratch / "audit" / "exclude.txt"))
    yield kept("teach", lambda: teach(layout, root, scratch / "cot"))
    if refused("teach"):
        yield kept("teach_skipping", lambda: teach(layout, root, scratch / "cot_skipping", "skip"))
    if layout == "revos":
        yield kept("sample", lambda: sample(root, scratch / "select.json"))
    yield kept("evaluate", lambda: evaluate(layout, root, scratch / "run"))
