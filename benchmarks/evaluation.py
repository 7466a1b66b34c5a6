"""Samples a second of an evaluation: the published loop and this repository's, on the same clips in one process.

    python -m benchmarks.evaluation                      # one H100, about 4 minutes: 3B dimensions, hiera-large, random weights
    python -m benchmarks.evaluation --smoke              # the same code with tiny models on the CPU, to see that it runs

Clips of 60 frames of 480 x 854, two expressions each: one is answered with one box, the other with three. (The real sets ask more of a
video: ReasonVOS about 5 expressions, MeViS valid_u 16, ReVOS 20.) Weights are random, so both ways generate the same fixed number of tokens
and then track the same boxes from the same keyframe, from JPEG files to PNG files.

The published loop: one sample after the other, transformers `generate`, then sam2's own video predictor from the clip's folder, object by
object, under bf16 autocast; its data loader prepares the next prompts meanwhile. Ours: `eval.worker`, as `eval.evaluate` runs it.
Loading and the first samples of each, which compile, are not counted. Where flash-attn is absent, transformers' vision tower loops over
attention windows; `of generate: the prompt` bounds what that costs. vLLM runs without CUDA graphs here unless asked, to our disadvantage.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from benchmarks.reward_throughput import PublishedSchedule
from eval.config import EvaluateConfig
from eval.run_folder import JOURNAL
from eval.scores import read_predictions
from eval.worker import EvaluationWorker
from veason.answers import format_answer
from veason.metrics import jaccard
from veason.pipeline import Segmenter
from veason.policy import Question, Sampling, VLLMPolicy
from veason.toy.corpus import toy_sentences
from veason.toy.tiny_policy import PolicySize, build_processor, policy_config
from veason.toy.tokenizer import train_tokenizer
from veason.tracker import VideoTracker
from veason.tracking.loading import load_model
from veason.video import open_folder

BAR = 8.0  # times the published loop's samples a second
THREE_B = PolicySize(
    hidden_size=2048, layers=36, heads=16, kv_heads=2, intermediate_size=11008,
    vision_hidden_size=1280, vision_depth=32, vision_heads=16, vision_intermediate_size=3420,
)  # fmt: skip
VOCABULARY, FULL_ATTENTION = 151936, [7, 15, 23, 31]
BOXES = {  # expression -> boxes in the 560 x 560 square
    0: [[180, 160, 380, 400]],
    1: [[40, 60, 200, 240], [220, 200, 380, 420], [400, 90, 540, 300]],
}


def write_clips(root: Path, clips: int, options: argparse.Namespace) -> None:
    """Moving texture, in ReasonVOS's layout."""
    names = [f"{number:05d}" for number in range(options.frames)]
    rng = np.random.default_rng(0)
    height, width = options.height, options.width
    scene = cv2.resize(rng.integers(0, 255, (height // 8, (width + 8 * clips + options.frames) // 8, 3), np.uint8), None, fx=8, fy=8)

    def write(clip: int) -> None:
        folder = root / "JPEGImages" / f"clip{clip:03d}"
        folder.mkdir(parents=True)
        for number, name in enumerate(names):
            cv2.imwrite(str(folder / f"{name}.jpg"), scene[:height, 8 * clip + number :][:, :width])

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(clips)))
    expressions = [{"exp_text": f"thing {number}", "obj_id": number, "exp_id": number} for number in BOXES]
    videos = {f"clip{clip:03d}": {"source": "made", "frames": names, "expressions": expressions} for clip in range(clips)}
    (root / "meta_expressions_.json").write_text(json.dumps({"videos": videos}))


def write_policy_folder(folder: Path, smoke: bool) -> None:
    """Config, tokenizer and processor of a policy without weights. The tokenizer is the toy world's: only lengths matter here."""
    tokenizer = train_tokenizer(toy_sentences(seed=0), PolicySize().vocab_size)
    config = policy_config(PolicySize() if smoke else THREE_B, tokenizer)
    if not smoke:
        config.text_config.vocab_size = VOCABULARY
        config.vision_config.fullatt_block_indexes = FULL_ATTENTION
    config.architectures = ["Qwen2_5_VLForConditionalGeneration"]
    config.save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)


def expected_answer(name: str, keyframe: int) -> str:
    return format_answer("It is there.", keyframe, BOXES[int(name.rsplit("/", 1)[1])])


# -- the published loop -----------------------------------------------------------------------------------------------


class Prompts(torch.utils.data.Dataset):
    """What the published data loader prepares: the processor's tensors of one sample."""

    def __init__(self, questions: Sequence[Any], processor: Any) -> None:
        self.questions, self.processor = questions, processor

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        question: Question = self.questions[index]()
        text = self.processor.apply_chat_template(question.messages, tokenize=False, add_generation_prompt=True)
        return dict(self.processor(text=[text], images=question.images, return_tensors="pt"))


def published_loop(
    worker: EvaluationWorker, indices: Sequence[int], options: argparse.Namespace, model: Any, predictor: Any
) -> dict[str, float]:
    """Seconds of each part, and `total`, over samples one after the other."""
    device = options.device
    samples = [worker.benchmark.samples[index] for index in indices]
    asked = [lambda sample=sample: worker.segmenter.questions(open_folder(sample.frame_dir), [sample.expression])[0] for sample in samples]
    loader = torch.utils.data.DataLoader(Prompts(asked, options.processor), batch_size=None, num_workers=0 if options.smoke else 8)
    seconds = {"generate": 0.0, "track": 0.0, "write": 0.0}
    started = time.perf_counter()
    for sample, inputs in zip(samples, loader):
        seconds["generate"] += generate(model, inputs, options.tokens, device)
        mark = time.perf_counter()
        factors = np.array([sample.width, sample.height] * 2) / worker.segmenter.size
        boxes = np.array(BOXES[int(sample.exp_id)]) * factors
        masks = published_tracking(predictor, sample.frame_dir, options.frames // 2, boxes.astype(int), device)
        seconds["track"] += time.perf_counter() - mark
        mark = time.perf_counter()
        folder = Path(options.work) / "published" / sample.result_dir
        folder.mkdir(parents=True, exist_ok=True)
        for frame, mask in zip(sample.frames, masks):
            Image.fromarray(mask.astype(np.uint8) * 255).convert("L").save(folder / f"{frame}.png")
        seconds["write"] += time.perf_counter() - mark
    total = time.perf_counter() - started
    return {**seconds, "total": total, "of generate: the prompt": len(samples) * generate(model, inputs, 1, device)}


def generate(model: Any, inputs: dict[str, torch.Tensor], tokens: int, device: str) -> float:
    """Seconds of transformers' greedy `generate`."""
    started = time.perf_counter()
    on_device = {key: value.to(device) for key, value in inputs.items()}
    model.generate(**on_device, use_cache=True, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
    _wait(device)
    return time.perf_counter() - started


def published_tracking(predictor: Any, folder: Path, keyframe: int, boxes: np.ndarray, device: str) -> np.ndarray:
    """bool [T, H, W] of sam2's video predictor, forward and backward from the keyframe."""
    with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
        state = predictor.init_state(str(folder))
        for number, box in enumerate(boxes):
            predictor.add_new_points_or_box(state, frame_idx=keyframe, obj_id=number, box=box.astype(np.float32))
        found = {}
        for reverse in (False, True):
            for frame, _, logits in predictor.propagate_in_video(state, start_frame_idx=keyframe, reverse=reverse):
                found[frame] = (logits > 0).any(0)[0].cpu().numpy()
    return np.stack([found[frame] for frame in sorted(found)])


def build_published(options: argparse.Namespace) -> tuple[Any, Any]:
    from sam2.utils import misc
    from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration

    misc.tqdm = lambda frames, **_: frames  # no bar for every clip
    attention = "sdpa"
    if options.device == "cuda":
        from transformers.utils import is_flash_attn_2_available

        attention = "flash_attention_2" if is_flash_attn_2_available() else "sdpa"
    config = AutoConfig.from_pretrained(options.policy)
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    with torch.device(options.device):
        model = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=dtype, attn_implementation=attention).eval()
    print(f"published loop: transformers generate with {attention}, sam2 video predictor", flush=True)
    weights = torch.load(options.sam2_weights, weights_only=True)
    return model, PublishedSchedule(options.sam2_config, weights, torch.device(options.device)).predictor


# -- ours -------------------------------------------------------------------------------------------------------------


class ToldPolicy(VLLMPolicy):
    """Generates for real, then says what it is told to: the weights are random."""

    keyframe = 0

    def answers(self, questions: Sequence[Question]) -> list[str]:
        super().answers(questions)
        return [expected_answer(question.name, self.keyframe) for question in questions]

    def _sampling_params(self, question: Question) -> Any:
        how = super()._sampling_params(question)
        how.detokenize = False  # the toy tokenizer has no text for most of the 151,936 ids
        return how


def build_ours(options: argparse.Namespace, worker: EvaluationWorker) -> None:
    sampling = Sampling(max_tokens=options.tokens, ignore_eos=True)
    eager = not options.graphs
    policy = ToldPolicy(options.policy, sampling, memory=0.5, enforce_eager=eager, load_format="dummy", max_images=8)
    policy.keyframe = options.frames // 2
    tracker = VideoTracker.from_files(options.sam2_config, options.sam2_weights, options.device, max_frames=64)
    worker.segmenter = replace_parts(worker.segmenter, policy, tracker)


def replace_parts(segmenter: Segmenter, policy: Any, tracker: Any) -> Segmenter:
    return Segmenter(policy, tracker, segmenter.sampled_frames, segmenter.size)


# -- the comparison ---------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--published_clips", type=int, default=1, help="of these; the published loop's time is the same for each")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--tokens", type=int, default=256, help="generated for each sample")
    parser.add_argument(
        "--graphs", action="store_true", help="let vLLM compile and capture CUDA graphs, as eval.evaluate does: a minute more"
    )
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        began = time.perf_counter()
        options.elapsed = lambda: f"{time.perf_counter() - began:.0f} s"
        prepare(options, work)
        root = Path(work) / "ReasonVOS"
        write_clips(root, options.clips, options)
        write_policy_folder(Path(options.policy), options.smoke)
        from transformers import AutoProcessor

        options.processor = AutoProcessor.from_pretrained(options.policy)
        size = 112 if options.smoke else 560
        config = EvaluateConfig(options.policy, str(root), str(Path(work) / "ours"))
        worker = EvaluationWorker(config, 0, Segmenter(None, None, size=size))  # type: ignore[arg-type]
        theirs = measure_published(options, worker)
        ours = measure_ours(options, worker)
        report(options, theirs, ours, agreement(options, worker))


def prepare(options: argparse.Namespace, work: str) -> None:
    options.work, options.policy = work, str(Path(work) / "policy")
    options.height, options.width, options.device = 480, 854, "cuda"
    options.sam2_config = "configs/sam2.1/sam2.1_hiera_l.yaml"
    if options.smoke:
        from veason.toy import tiny_tracker

        options.height, options.width, options.device = 72, 128, "cpu"
        options.clips, options.published_clips, options.frames, options.tokens = 2, 1, 8, 4
        options.sam2_config = str(Path(work) / "sam2_tiny.yaml")
        tiny_tracker.write_tracker(work)
    elif not torch.cuda.is_available():
        raise SystemExit("benchmarks.evaluation: no GPU here; --smoke runs the same code on the CPU")
    torch.manual_seed(0)
    options.sam2_weights = str(Path(work) / "sam2.pt")
    torch.save(load_model(options.sam2_config, None, torch.device("cpu")).state_dict(), options.sam2_weights)


def measure_published(options: argparse.Namespace, worker: EvaluationWorker) -> dict[str, float]:
    model, predictor = build_published(options)
    samples = 2 * options.published_clips
    published_loop(worker, range(1), replace_tokens(options, 8), model, predictor)  # not counted
    seconds = published_loop(worker, range(samples), options, model, predictor)
    print(f"published loop: {samples} samples in {seconds['total']:.1f} s, at {options.elapsed()}", flush=True)
    del model, predictor
    gc.collect()
    if options.device == "cuda":
        torch.cuda.empty_cache()
    return {key: value / samples for key, value in seconds.items()}


def measure_ours(options: argparse.Namespace, worker: EvaluationWorker) -> dict[str, float]:
    samples = 2 * options.clips
    build_ours(options, worker)
    print(f"ours: loaded at {options.elapsed()}", flush=True)
    worker.run(range(2))  # compiles
    print(f"ours: compiled at {options.elapsed()}", flush=True)
    _wait(options.device)
    started = time.perf_counter()
    worker.run(range(samples))
    _wait(options.device)
    total = (time.perf_counter() - started) / samples
    journal = (Path(worker.folder.path) / JOURNAL / "0.jsonl").read_text(encoding="ascii").splitlines()
    spent = [json.loads(line)["seconds"] for line in journal[-samples:]]
    parts = {f"{part} (others go on)" if part == "write" else part: float(np.mean([s[part] for s in spent])) for part in spent[0]}
    return {**parts, "total": total}


def agreement(options: argparse.Namespace, worker: EvaluationWorker) -> float:
    """Mean J of the masks that the two ways wrote for the same samples."""
    scores = []
    for sample in worker.benchmark.samples[: 2 * options.published_clips]:
        theirs, ours = (read_predictions(Path(options.work) / way, sample)[0] for way in ("published", "ours"))
        scores.append(jaccard(ours, theirs).mean())
    return float(np.mean(scores))


def replace_tokens(options: argparse.Namespace, tokens: int) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(options), "tokens": min(tokens, options.tokens)})


def report(options: argparse.Namespace, theirs: dict[str, float], ours: dict[str, float], agree: float) -> None:
    times = theirs["total"] / ours["total"]
    parts = ({key: round(value, 3) for key, value in way.items()} for way in (theirs, ours))
    print("\n| way | seconds a sample | samples/s | parts |\n| --- | --- | --- | --- |")
    for name, way, part in zip(("published loop", "this repository"), (theirs, ours), parts):
        print(f"| {name} | {way['total']:.3f} | {1 / way['total']:.3f} | {part} |")
    device = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
    job = {"clips": options.clips, "frames": options.frames, "tokens": options.tokens, "device": device, "torch": torch.__version__}
    verdict = "" if options.smoke else f"; bar {BAR}: {'met' if times >= BAR else 'MISSED'}"
    print(f"\nmasks of the two ways agree to J = {agree:.3f} (random weights)")
    print(f"{times:.2f} times as fast{verdict}\n{json.dumps(job)}; the whole comparison took {options.elapsed()}")


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
