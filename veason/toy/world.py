"""Generates the toy data sets: ReVOS (train and valid) and ReasonVOS in their exact layouts, with `scenes.json`.

    python -m veason.toy.world --output world --seed 0

Videos, expressions and masks are deterministic in the options and the seed. `scenes.json` is read by the toy teacher.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from veason.command_line import HelpFormatter, parse_arguments
from veason.toy.expressions import scene_queries
from veason.toy.facts import scene_facts
from veason.toy.layout_writers import RevosAnnotation, make_revos_annotation, write_reasonvos, write_revos_files
from veason.toy.render import draw_frames, draw_masks, object_crops, scene_tensors, to_pixels
from veason.toy.scene import Scene, random_scene
from veason.toy.toy_video import ToyVideo


def draw_video(name: str, scene: Scene, queries: int, seed: int) -> ToyVideo:
    """Renders a scene and derives its facts and expressions."""
    tensors = scene_tensors(scene)
    crops = object_crops(tensors)
    pictures = to_pixels(draw_frames(tensors, crops, torch.Generator().manual_seed(scene.background_seed)))
    visible, amodal = draw_masks(tensors, crops)
    facts = scene_facts(scene, visible, amodal)
    return ToyVideo(name, pictures, visible, facts, scene_queries(facts, random.Random(seed), queries))


def make_video(name: str, seed: int, frames: int = 20, queries: int = 6) -> ToyVideo:
    """Renders a video that depends on its name and the seed only.

    A scene is drawn again, up to 20 times, until it has a referring and a reasoning expression.
    """
    prefix, number = name.rsplit("_", 1)
    rng = random.Random(f"{prefix}/{int(number)}/{seed}")
    for _ in range(20):
        length = max(4, frames + rng.randint(-frames // 5, frames // 5))
        video = draw_video(name, random_scene(rng, length), queries, rng.randrange(2**31))
        if {0, 1} <= {query.type_id for query in video.queries}:
            break
    return video


def make_videos(prefix: str, count: int, seed: int, frames: int = 20, queries: int = 6) -> list[ToyVideo]:
    """`count` videos named `<prefix>_0000`, ..."""
    return [make_video(f"{prefix}_{number:04d}", seed, frames, queries) for number in range(count)]


def make_revos_annotations(
    root: Path, prefix: str, count: int, seed: int, frames: int, queries: int, workers: int
) -> list[RevosAnnotation]:
    """Renders the videos of `make_videos` with `workers` processes and writes their frames below `root`."""
    draw = partial(_make_annotation, root, seed, frames, queries)
    names = [f"{prefix}_{number:04d}" for number in range(count)]
    if workers == 1:
        return [draw(name) for name in names]
    with ProcessPoolExecutor(workers, get_context("spawn"), _one_thread) as pool:
        return list(pool.map(draw, names, chunksize=8))


def _one_thread() -> None:
    torch.set_num_threads(1)  # frames are too small for several threads to help


def _make_annotation(root: Path, seed: int, frames: int, queries: int, name: str) -> RevosAnnotation:
    return make_revos_annotation(root, make_video(name, seed, frames, queries))


def make_world(
    output: str | Path,
    seed: int = 0,
    train_videos: int = 60,
    valid_videos: int = 16,
    reasonvos_videos: int = 8,
    frames: int = 20,
    queries: int = 6,
    workers: int = 1,
) -> dict[str, int]:
    """Writes `output`/ReVOS and `output`/ReasonVOS with `workers` processes; returns the counts of each split.

    Raises:
        FileExistsError: the folder holds a data set already.
    """
    output = Path(output)
    for name in ("ReVOS", "ReasonVOS"):
        if (output / name).exists():
            raise FileExistsError(f"{output / name} exists; give another --output or remove it")
    root = output / "ReVOS"
    entries = {
        name: make_revos_annotations(root, f"toy/{name}", count, seed, frames, queries, workers)
        for name, count in (("train", train_videos), ("valid", valid_videos))
    }
    write_revos_files(root, entries)
    reasonvos = make_videos("reason", reasonvos_videos, seed, frames, queries)
    write_reasonvos(output / "ReasonVOS", reasonvos)
    return split_counts({**entries, "reasonvos": reasonvos})


def split_counts(splits: Mapping[str, Sequence[ToyVideo | RevosAnnotation]]) -> dict[str, int]:
    """Numbers of videos and of expressions per split."""
    counts: dict[str, int] = {}
    for split, videos in splits.items():
        counts[f"{split} videos"] = len(videos)
        counts[f"{split} expressions"] = sum(len(video.queries) for video in videos)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--output", required=True, help="folder of the world")
    parser.add_argument("--seed", type=int, default=0, help="of all videos")
    parser.add_argument("--train_videos", type=int, default=60, help="training videos of ReVOS")
    parser.add_argument("--valid_videos", type=int, default=16, help="validation videos of ReVOS")
    parser.add_argument("--reasonvos_videos", type=int, default=8, help="videos of ReasonVOS")
    parser.add_argument("--frames", type=int, default=20, help="mean frames of a video, varied by up to a fifth")
    parser.add_argument("--queries", type=int, default=6, help="most expressions per video")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    options = vars(parse_arguments(parser))
    start = time.perf_counter()
    _one_thread()
    try:
        counts = make_world(**options)
    except FileExistsError as error:
        raise SystemExit(f"toy world: {error}") from None
    text = ", ".join(f"{number} {what}" for what, number in counts.items())
    print(f"toy world in {options['output']}: {text}; {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
