"""Opening ReVOS and preparing a training sample: the index against loading mask_dict.json whole, side by side in one
run.

    python benchmarks/data_loading.py --folder /path/with/6GB     # makes its own ReVOS there, once; 2 minutes

The generated set has the real one's proportions: 1,042 videos of 100 frames at 1280 x 720, twelve objects a video,
21,000 training expressions, a mask_dict.json of 2 GB (`--objects` scales it). Both ways run in processes of their own.
The loading way does what the published data set does: json.load of everything, then for each sample every mask of every
frame decoded, stacked and measured. Times are CPU time of one thread, so that neighbours on the machine do not matter;
files are warm.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from pycocotools import mask as coco

from veason.command_line import HelpFormatter

HEIGHT, WIDTH, FRAMES = 720, 1280, 100
TRAIN_VIDEOS, VIDEOS, EXPRESSIONS = 626, 1042, 34
PICTURE_FOLDERS = 4  # the other videos link to these


def generate(root: Path, objects: int) -> None:
    """A ReVOS of real proportions; all tracks take their masks from a bank of moving blobs with ragged borders."""
    rng = np.random.default_rng(0)
    bank = [blob_track(rng) for _ in range(12)]
    root.mkdir(parents=True)
    names = [f"{number:05d}" for number in range(FRAMES)]
    for folder in range(PICTURE_FOLDERS):
        path = root / "JPEGImages" / f"video{folder:04d}"
        path.mkdir(parents=True)
        scene = np.asarray(
            Image.fromarray(rng.integers(0, 255, (18, 32, 3), np.uint8)).resize((WIDTH + FRAMES, HEIGHT))
        )
        for number, name in enumerate(names):
            picture = scene[:, number : number + WIDTH] // 2 + rng.integers(0, 8, (HEIGHT, WIDTH, 1), np.uint8)
            Image.fromarray(picture.astype(np.uint8)).save(path / f"{name}.jpg", quality=90)

    videos: dict[str, dict] = {}
    with open(root / "mask_dict.json", "w") as file:
        separator = "{"
        for video in range(VIDEOS):
            title = f"video{video:04d}"
            if video >= PICTURE_FOLDERS:
                (root / "JPEGImages" / title).symlink_to(f"video{video % PICTURE_FOLDERS:04d}")
            ids = [video * objects + number for number in range(objects)]
            for anno_id in ids:
                track, shift = bank[int(rng.integers(len(bank)))], int(rng.integers(FRAMES))
                absent = rng.random(FRAMES) < 0.15
                masks = ", ".join("null" if absent[t] else track[(t + shift) % FRAMES] for t in range(FRAMES))
                file.write(f'{separator}"{anno_id}": [{masks}]')
                separator = ", "
            expressions = {}
            for number in range(EXPRESSIONS):
                chosen = sorted(
                    rng.choice(objects, size=min(objects, int(rng.choice([1, 1, 1, 2, 3]))), replace=False).tolist()
                )
                text = f"the object that moves to the left before number {number} comes in."
                expressions[str(number)] = {
                    "exp": text,
                    "obj_id": chosen,
                    "anno_id": [ids[i] for i in chosen],
                    "type_id": number % 2,
                }
            videos[title] = {
                "vid_id": video,
                "frames": names,
                "height": HEIGHT,
                "width": WIDTH,
                "expressions": expressions,
            }
        file.write("}")
    titles = list(videos)
    for split, part in (("train", titles[:TRAIN_VIDEOS]), ("valid", titles[TRAIN_VIDEOS:])):
        (root / f"meta_expressions_{split}_.json").write_text(
            json.dumps({"videos": {title: videos[title] for title in part}})
        )


def blob_track(rng: np.random.Generator) -> list[str]:
    """The RLEs of a drifting blob with a hairy border, as JSON text: about 2 kB each."""
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    radius = float(rng.uniform(90, 190))
    centre, speed = rng.uniform((200, 200), (HEIGHT - 200, WIDTH - 200)), rng.uniform(-2, 2, 2)
    track = []
    for t in range(FRAMES):
        hairy = radius * (1 + 0.2 * np.sin(3 * angle + t / 9) + 0.026 * rng.standard_normal(len(angle)))
        y, x = centre[0] + speed[0] * t + hairy * np.sin(angle), centre[1] + speed[1] * t + hairy * np.cos(angle)
        polygon = np.stack([x.clip(0, WIDTH - 1), y.clip(0, HEIGHT - 1)], axis=1).ravel().tolist()
        rle = coco.merge(coco.frPyObjects([polygon], HEIGHT, WIDTH))
        track.append(json.dumps({"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}))
    return track


# --- one way each, in a process of its own ---


def resident_mb() -> float:
    """Resident memory of this process, in MB."""
    return psutil.Process().memory_info().rss / (1 << 20)


def run_loading(root: Path, count: int) -> dict:
    """The whole file in memory, everything decoded."""
    before, started = resident_mb(), time.process_time()
    meta = json.loads((root / "meta_expressions_train_.json").read_text())["videos"]
    masks_started = time.process_time()
    with open(root / "mask_dict.json") as file:
        mask_dict = json.load(file)
    masks_opening = time.process_time() - masks_started
    samples = []
    for video, data in meta.items():
        frames = sorted(data["frames"])
        for exp in data["expressions"].values():
            paths = [
                os.path.join(str(root), "JPEGImages", video, frame + ".jpg") for frame in frames
            ]  # every expression has its own
            samples.append(
                {"video": video, "anno_id": [str(x) for x in exp["anno_id"]], "exp": exp["exp"], "paths": paths}
            )
    opening, memory = time.process_time() - started, resident_mb()
    rng, times, digest = np.random.default_rng(0), [], []
    for index in range(count):
        started = time.process_time()
        digest.append(prepare_by_decoding(mask_dict, samples[pick(index, len(samples))], rng))
        times.append(time.process_time() - started)
    return {
        "opening": opening,
        "masks": masks_opening,
        "memory": memory,
        "base": before,
        "sample": float(np.mean(times)),
        "samples": len(samples),
        "areas": digest,
    }


def prepare_by_decoding(mask_dict: dict, sample: dict, rng: np.random.Generator) -> list[int]:
    """Six frames with their boxes and masks at 560 x 560, decoding every mask of every frame, as the published code."""
    paths = sample["paths"]
    height, width = np.asarray(Image.open(paths[0]).convert("RGB")).shape[:2]
    unions, objects = [], []
    for t in range(len(paths)):
        union, apart = np.zeros((height, width), np.uint8), []
        for anno_id in sample["anno_id"]:
            alone = np.zeros((height, width), np.uint8)
            rle = mask_dict[anno_id][t]
            if rle is not None:
                pixels = coco.decode(rle).astype(np.uint8)
                union, alone = union | pixels, alone | pixels
            apart.append(alone)
        objects.append(np.stack(apart))
        unions.append(union)
    every_object, every_union = np.stack(objects), np.stack(unions)  # [T, objects, H, W], [T, H, W]
    areas = (every_union > 0).sum(axis=(1, 2))
    anchor = int(rng.choice(areas.argsort()[-5:]))
    stride = math.ceil(len(paths) / 5)
    chosen = list(range(anchor % stride, len(paths), stride))

    boxes = []
    for frame in every_object[chosen]:
        for mask in frame:
            if np.any(mask):
                left, top = np.where(mask == 1)[1].min(), np.where(mask == 1)[0].min()
                right, bottom = np.where(mask == 1)[1].max(), np.where(mask == 1)[0].max()
                boxes.append(
                    [
                        left * 560 / width + 0.5,
                        top * 560 / height + 0.5,
                        right * 560 / width + 0.5,
                        bottom * 560 / height + 0.5,
                    ]
                )
            else:
                boxes.append([0, 0, 0, 0])
    rows, columns = np.arange(560) * height // 560, np.arange(560) * width // 560
    small = every_union[chosen][:, rows[:, None], columns]
    whole = [Image.open(paths[t]).convert("RGB") for t in chosen]
    pictures = [picture.resize((560, 560), Image.Resampling.BILINEAR) for picture in whole]
    assert boxes and len(small) == len(pictures)
    return [int(area) for area in areas]


def run_index(root: Path, count: int) -> dict:
    """The index, reading only what the sampled frames need."""
    from veason.data.mask_index import MaskIndex
    from veason.data.training import KeyframeTrainingData

    before, started = resident_mb(), time.process_time()
    index = MaskIndex.open(root / "mask_dict.json", progress=False)
    first = index["0"]
    index_opening = time.process_time() - started
    started = time.process_time()
    data = KeyframeTrainingData(root)
    opening, memory = time.process_time() - started, resident_mb()
    times = []
    for number in range(count):
        started = time.process_time()
        data.example(pick(number, len(data)), seed=0)
        times.append(time.process_time() - started)
    areas = [
        data.benchmark.areas(data.samples[pick(number, len(data))]).astype(int).tolist() for number in range(count)
    ]
    return {
        "opening": opening,
        "masks": index_opening,
        "memory": memory,
        "base": before,
        "after": resident_mb(),
        "sample": float(np.mean(times)),
        "samples": len(data),
        "areas": areas,
        "frames": len(first),
    }


def run_build(root: Path, count: int) -> dict:  # noqa: ARG001 (the same arguments for all)
    """The index, built anew."""
    import resource

    from veason.data.mask_index import MaskIndex, index_path

    index_path(root / "mask_dict.json").unlink(missing_ok=True)
    started = time.process_time()
    MaskIndex.open(root / "mask_dict.json", progress=False)
    return {"seconds": time.process_time() - started, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


METHODS = {"loading": run_loading, "index": run_index, "build": run_build}


def pick(number: int, total: int) -> int:
    return number * 977 % total


def in_process(method: str, root: Path, count: int) -> dict:
    command = [sys.executable, __file__, "--folder", str(root.parent), "--samples", str(count), "--method", method]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where ReVOS_generated is made, or is already")
    parser.add_argument(
        "--objects", type=int, default=12, help="objects a video; 12 give a mask_dict.json of about 2 GB"
    )
    parser.add_argument("--samples", type=int, default=20, help="training samples prepared by each way")
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    root = options.folder / "ReVOS_generated"
    if options.method:
        print(json.dumps(METHODS[options.method](root, options.samples)))
        return
    if not (root / "meta_expressions_valid_.json").is_file():
        print(f"making {root}", flush=True)
        generate(root, options.objects)

    build = in_process("build", root, 0)
    in_process("index", root, 2)  # both ways read warm files
    index, loading = in_process("index", root, options.samples), in_process("loading", root, options.samples)
    assert index["areas"] == loading["areas"], "the two ways disagree about the areas"
    size = (root / "mask_dict.json").stat().st_size / 1e9
    stored = (root / "mask_dict.json.index").stat().st_size / 1e9
    speed = size * 1e3 / build["seconds"]
    print(f"mask_dict.json {size:.2f} GB, index {stored:.2f} GB, {index['samples']} training expressions")
    print(f"building the index, once: {build['seconds']:.1f} s, {speed:.0f} MB/s, peak memory {build['peak']:.0f} MB")
    print(f"{'':34}{'loading':>12}{'index':>12}{'ratio':>10}   target")
    for label, key, unit, scale, target in (
        ("opening the masks", "masks", "ms", 1e3, 100),
        ("opening all, every list checked", "opening", "ms", 1e3, None),
        ("resident memory of a worker", "memory", "MB", 1, 20),
        ("preparing a training sample", "sample", "ms", 1e3, 10),
    ):
        ratio = loading[key] / index[key]
        print(
            f"{label:34}{loading[key] * scale:>9.2f} {unit:<2}{index[key] * scale:>9.2f} {unit:<2}{ratio:>9.1f}x   "
            f"{target or '-'}"
        )


if __name__ == "__main__":
    main()
