"""The toy world in the layout of every benchmark: the same loop segments it, the same command scores it."""

import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from eval.evaluation_folder import EvaluationFolder
from eval.evaluation_options import EvaluateConfig
from eval.evaluation_worker import EvaluationWorker
from eval.score_table import summarize
from tests.scoring import score_benchmark
from veason.data import BENCHMARKS, find_benchmark, open_benchmark
from veason.masks import encode


@pytest.fixture(scope="module")
def videos(toy_world):
    """(name, frame folder, frame names, expressions with their ground-truth masks [objects, T, H, W]) of the toy ReVOS,
    without absent targets.
    """
    revos = open_benchmark("revos", toy_world / "ReVOS")
    found = {}
    for sample in revos.samples:
        if sample.type_id != 2:
            found.setdefault(sample.video, (sample, []))[1].append((sample.expression, revos.masks(sample)))
    return [(name.replace("/", "_"), sample.frame_dir, sample.frames, asked) for name, (sample, asked) in found.items()]


def rle_json(mask):
    rle = encode(mask)
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_mevis(root, videos):
    meta, tracks = {}, {}
    for name, folder, frames, asked in videos:
        shutil.copytree(folder, root / "valid_u" / "JPEGImages" / name)
        expressions = {}
        for number, (text, masks) in enumerate(asked):
            ids = []
            for track in masks:
                ids.append(len(tracks))
                tracks[str(ids[-1])] = [rle_json(mask) if mask.any() else None for mask in track]
            expressions[str(number)] = {"exp": text, "obj_id": ids, "anno_id": ids}
        meta[name] = {"frames": list(frames), "expressions": expressions}
    write_json(root / "valid_u" / "meta_expressions.json", {"videos": meta})
    write_json(root / "valid_u" / "mask_dict.json", tracks)


def write_vicas(root, videos):
    for number, (_, folder, frames, asked) in enumerate(videos):
        shutil.copytree(folder, root / "video_frames" / f"{number:06d}")
        tracks = [track for _, masks in asked for track in masks]
        ids = iter(range(len(tracks)))
        referrals = [{"prompt": text, "track_ids": [next(ids) for _ in masks]} for text, masks in asked]
        segmentations = []
        for t, frame in enumerate(frames):
            rles = [rle_json(track[t]) for track in tracks]
            segmentations.append(
                {"filename": f"{frame}.jpg", "is_gt": True, "track_ids": list(range(len(tracks))), "mask_rles": rles}
            )
        content = {"image_size": tracks[0].shape[1:], "object_referrals": referrals, "segmentations": segmentations}
        write_json(root / "annotations" / "v1.0" / f"{number:06d}.json", content)
    write_json(root / "splits" / "v1.0" / "val.json", list(range(len(videos))))


def write_numbered(root, videos, split, descriptions):
    """Ref-YouTube-VOS's and Ref-DAVIS17's layout: PNGs of object numbers, so objects that do not overlap."""
    meta = {}
    for name, folder, frames, asked in videos:
        shutil.copytree(folder, root / split / "JPEGImages" / name)
        text, masks = next((text, masks) for text, masks in asked if len(masks) == 1)
        (root / split / "Annotations" / name).mkdir(parents=True)
        for frame, mask in zip(frames, masks[0]):
            Image.fromarray(mask.astype(np.uint8)).save(root / split / "Annotations" / name / f"{frame}.png")
        expressions = {str(number): {"exp": text, "obj_id": "1"} for number in range(descriptions)}
        meta[name] = {"frames": list(frames), "expressions": expressions}
    write_json(root / "meta_expressions" / split / "meta_expressions.json", {"videos": meta})


def write_mevis2(root, videos):
    """MeViS with an expression that names no object."""
    write_mevis(root, videos)
    path = root / "valid_u" / "meta_expressions.json"
    content = json.loads(path.read_text())
    next(iter(content["videos"].values()))["expressions"]["absent"] = {"exp": "a whale", "obj_id": [], "anno_id": []}
    write_json(path, content)


def write_ref_sav(root, videos):
    """MeViS's files with other names, and the two types in turn."""
    write_mevis(root, videos)
    (root / "valid_u" / "JPEGImages").rename(root / "videos")
    (root / "valid_u" / "mask_dict.json").rename(root / "mask_dict.json")
    content = json.loads((root / "valid_u" / "meta_expressions.json").read_text())
    for meta in content["videos"].values():
        for number, expression in enumerate(meta["expressions"].values()):
            expression["type_id"] = number % 2
    shutil.rmtree(root / "valid_u")
    write_json(root / "meta_expressions_valid.json", content)


def single(asked):
    """The first expression about one object, with its masks [T, H, W]."""
    return next((text, masks[0]) for text, masks in asked if len(masks) == 1)


def write_long_rvos(root, videos):
    meta = {}
    for name, folder, frames, asked in videos:
        shutil.copytree(folder, root / "valid" / "JPEGImages" / name)
        text, track = single(asked)
        (root / "valid" / "Annotations" / name / "3").mkdir(parents=True)
        for frame, mask in zip(frames, track):
            if mask.any():
                Image.fromarray(mask * np.uint8(255)).save(root / "valid" / "Annotations" / name / "3" / f"{frame}.png")
        types = ("static", "dynamic", "static+dynamic")
        expressions = {str(n): {"exp": text, "obj_id": "3", "type": kind} for n, kind in enumerate(types)}
        meta[name] = {"frames": list(frames), "expressions": expressions}
    write_json(root / "valid" / "meta_expressions.json", {"videos": meta})


def write_groundmore(root, videos):
    meta = {}
    for name, folder, _, asked in videos:
        place = root / "groundmore_videos" / f"{name}_0000_0010"
        shutil.copytree(folder, place / "images")
        text, track = single(asked)
        (place / "masks").mkdir()
        for position, mask in enumerate(track):
            Image.fromarray(mask.astype(np.uint8)).save(place / "masks" / f"frame_{position:06d}.png")
        question = {"question": text, "answer": "x", "obj_id": "1", "action_start": "0:00", "action_end": "0:10"}
        kinds = ("Causal", "Sequential", "Counterfactual", "Descriptive")
        meta[place.name] = {"questions": {str(n): {**question, "q_type": kind} for n, kind in enumerate(kinds)}}
    write_json(root / "groundmore_test.json", {"videos": meta})


def write_reasonseg(root, videos):
    (root / "val").mkdir(parents=True)
    for number, (name, folder, frames, asked) in enumerate(videos):
        text, track = single(asked)
        position = int(track.sum(axis=(1, 2)).argmax())
        shutil.copy(folder / f"{frames[position]}.jpg", root / "val" / f"{name}.jpg")
        outlines = cv2.findContours(track[position].astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        shapes = [{"label": "target", "points": outline[:, 0].tolist()} for outline in outlines]
        content = {"text": [text], "is_sentence": number % 2 == 0, "shapes": shapes}
        write_json(root / "val" / f"{name}.json", content)


@pytest.fixture(params=[*BENCHMARKS])
def layout(request, toy_world, tmp_path, videos):
    """(benchmark, root, split)"""
    name, root = request.param, tmp_path / "data"
    if name in ("revos", "reasonvos"):
        return name, toy_world / {"revos": "ReVOS", "reasonvos": "ReasonVOS"}[name], None
    if name == "refytvos":
        write_numbered(root, videos, "train", 1)
        return name, root, "train"
    {
        "mevis": write_mevis,
        "vicas": write_vicas,
        "refdavis17": lambda root, videos: write_numbered(root, videos, "valid", 4),
        "mevis2": write_mevis2,
        "long_rvos": write_long_rvos,
        "ref_sav": write_ref_sav,
        "groundmore": write_groundmore,
        "reasonseg": write_reasonseg,
    }[name](root, videos)
    return name, root, None


def test_every_benchmark_is_segmented_and_scored(layout, tmp_path, scripted):
    name, root, split = layout
    output = tmp_path / "run"
    config = EvaluateConfig("none", str(root), str(output), benchmark=name, split=split)
    folder, worker = EvaluationFolder(output), EvaluationWorker(config, 0, scripted())
    folder.begin({"benchmark": name})
    samples = worker.benchmark.samples
    worker.run(range(len(samples)))
    records = folder.finish(sample.sample_id for sample in samples)
    assert [record.sample_id for record in records] == [sample.sample_id for sample in samples]
    scores = score_benchmark(name, root, split, output, processes=1)
    assert [score.sample_id for score in scores] == [sample.sample_id for sample in samples]
    assert not any(score.missing for score in scores)
    assert 0 <= np.mean([score.JF for score in scores]) < 1

    # The ground truth in place of the predictions scores 100 everywhere.
    for sample in samples:
        for frame, mask in zip(sample.frames, worker.benchmark.masks(sample).max(axis=0, initial=0)):
            cv2.imwrite(str(output / sample.result_dir / f"{frame}.png"), mask.astype(np.uint8))
    values = summarize(find_benchmark(name), score_benchmark(name, root, split, output, processes=1))
    overall = values.get("Overall J&F") or values.get("J&F") or values["gIoU"]
    assert overall.value == pytest.approx(100)
    if name == "vicas":
        objects = [sample.num_objects for sample in samples]
        assert values["AP@50"].value >= 100 * sum(count == 1 for count in objects) / sum(objects) - 1e-9
