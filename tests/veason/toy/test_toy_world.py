"""The toy world: deterministic in its seed, consistent with its frames, and read back unchanged from every layout."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_layouts import LAYOUTS

from veason import masks
from veason.data import open_benchmark
from veason.toy.expressions import DIRECTION_PHRASES, absent_queries, reasoning_queries, referring_queries
from veason.toy.render import draw_frames, draw_masks, object_crops, scene_tensors
from veason.toy.scene import Scene, SceneObject, random_scene
from veason.toy.world import draw_video, make_videos, make_world

STANDING = tuple([(80.0, 60.0)] * 6)


def shape(path=STANDING, kind="square", colour="red", radius=20.0, depth=0, movement="still") -> SceneObject:
    return SceneObject(colour, kind, "plain", radius, depth, tuple(path), movement)


def line(start, end, frames=6):
    return tuple((float(x), float(y)) for x, y in np.linspace(start, end, frames))


def test_one_seed_gives_one_world_and_another_seed_another():
    first, again, other = (make_videos("v", 1, seed, frames=6)[0] for seed in (0, 0, 1))
    assert (first.frames == again.frames).all() and first.queries == again.queries
    assert first.frames.shape[1:] == (120, 160, 3)
    assert first.frames.shape != other.frames.shape or (first.frames != other.frames).any()


def test_a_square_covers_the_pixels_that_geometry_says_and_a_nearer_shape_covers_it():
    far, near = shape(depth=1), shape(colour="blue", radius=10.0)
    tensors = scene_tensors(Scene(6, (far, near), 0))
    crops = object_crops(tensors)
    frames, (visible, amodal) = draw_frames(tensors, crops), draw_masks(tensors, crops)
    assert tensors.order == [1, 0]  # the nearer one first
    side = 2 * 0.88 * 20
    assert abs(amodal[0, 0].sum().item() - side**2) < 3 * side
    assert not (visible[0, 0] & visible[0, 1]).any()
    assert ((visible[0, 0] | visible[0, 1]) == amodal[0, 0]).all()
    assert frames[0, 2, 60, 80] > 0.6 > 0.4 > frames[0, 0, 60, 80]  # blue in the middle
    assert frames[0, 0, 60, 65] > 0.6 > 0.4 > frames[0, 2, 60, 65]  # red around it


def test_facts_know_who_leaves_enters_hides_and_where_it_goes():
    shapes = (
        shape(radius=25.0, depth=-1),
        shape(line((20, 60), (140, 60), 7), "circle", "blue", 10.0, 1),  # behind the square in the middle
        shape(line((30, 25), (-60, 25), 7), "star", "green", 12.0, 2),
        shape(line((30, 200), (30, 95), 7), "cross", "cyan", 12.0, 3),
    )
    scene = Scene(7, (shape([(80, 60)] * 7, radius=25.0, depth=-1), *shapes[1:]), 5)
    facts = draw_video("v", scene, 6, 0).facts
    square, circle, star, cross = facts
    assert square.still and square.hidden_behind is None and square.visible_ratio == (1.0,) * 7
    assert (
        circle.hidden_behind == 0 and 3 in circle.hidden and circle.boxes[3] is None and circle.visible_ratio[3] == 0.0
    )
    assert circle.direction == "right" and circle.speed == pytest.approx(20.0)
    assert star.leaves is not None and star.leaves < 6 and star.direction == "left"
    assert cross.enters is not None and cross.enters > 0 and cross.direction == "up"
    left, top, right, bottom = circle.boxes[0]
    assert (left, right) == (10, 29) and (top, bottom) == (50, 69)
    texts = {query.text: query.targets for query in (*referring_queries(facts), *reasoning_queries(facts))}
    assert texts["the shape hidden behind the red square"] == texts["the shape that hides"] == (1,)
    assert texts["what another shape hides behind"] == texts["the shape that never moves"] == (0,)
    assert texts["the shape that leaves the picture"] == texts["the shape moving to the left"] == (2,)
    assert texts["the shape moving up"] == (3,)


def test_referring_expressions_mean_exactly_the_shapes_that_fit():
    for seed in range(30):
        facts = _facts_of(random_scene(random.Random(seed), 8), seed)
        for query in referring_queries(facts):
            if query.text.startswith("the shape moving ") or query.text.startswith("all shapes moving "):
                way = query.text.split("moving ")[1]
                assert query.targets == tuple(
                    k for k, f in enumerate(facts) if f.direction and DIRECTION_PHRASES[f.direction] == way
                )
            elif " and the " not in query.text:
                fitting = [k for k, f in enumerate(facts) if _fits(query.text, f)]
                assert list(query.targets) == fitting, (query.text, fitting)


def test_no_two_shapes_of_a_scene_look_alike_and_half_of_the_scenes_hide_one():
    scenes = [random_scene(random.Random(seed)) for seed in range(300)]
    for scene in scenes:
        looks = {(shape.colour, shape.shape) for shape in scene.shapes}
        assert len(looks) == len(scene.shapes) in (3, 4, 5)
        assert all(len(shape.path) == scene.frames for shape in scene.shapes)
    assert 0.4 < np.mean([any(shape.movement == "occluded" for shape in scene.shapes) for scene in scenes]) < 0.6


def test_absent_expressions_name_no_shape_of_the_scene():
    for seed in range(30):
        facts = _facts_of(random_scene(random.Random(seed), 8), seed)
        for query in absent_queries(facts, random.Random(seed)):
            assert query.type_id == 2 and query.targets == ()
            assert all(query.text != f"the {fact.name}" for fact in facts)


def _facts_of(scene, seed):
    return draw_video("v", scene, 6, seed).facts


def _fits(text, fact):
    """Whether every word that describes (colour, texture, outline) is true of the shape."""
    words = [word.removesuffix("es") if word.endswith("sses") else word for word in text.split()[1:]]
    singular = {word.rstrip("s") if word not in ("cross",) else word for word in words} - {"shape"}
    return singular <= {fact.colour, fact.texture, fact.shape.rstrip("s") if fact.shape != "cross" else "cross"}


def test_revos_on_disk_matches_the_rendered_videos(toy_root, toy_videos):
    root = toy_root / "ReVOS"
    mask_dict = json.loads((root / "mask_dict.json").read_text())
    types = set()
    for split, videos in (("train", toy_videos[:2]), ("valid", toy_videos[2:])):
        metas = json.loads((root / f"meta_expressions_{split}_.json").read_text())["videos"]
        assert list(metas) == [video.name for video in videos]
        for video in videos:
            meta = metas[video.name]
            assert (meta["height"], meta["width"]) == (120, 160) and meta["frames"] == sorted(meta["frames"])
            files = sorted((root / "JPEGImages" / video.name).iterdir())
            assert [file.stem for file in files] == meta["frames"]
            picture = np.asarray(Image.open(files[0])).astype(int)
            assert np.abs(picture - video.frames[0]).mean() < 12
            for exp_id, query in enumerate(video.queries):
                entry = meta["expressions"][str(exp_id)]
                types.add(entry["type_id"])
                assert (entry["exp"], entry["obj_id"]) == (query.text, list(query.targets))
                assert (entry["anno_id"] == []) == (entry["type_id"] == 2)
                for shape_id, anno_id in zip(query.targets, entry["anno_id"]):
                    track = mask_dict[str(anno_id)]
                    assert len(track) == len(meta["frames"])
                    for time, rle in enumerate(track):
                        seen = video.facts[shape_id].boxes[time] is not None
                        assert (rle is not None) == seen
                        if seen:
                            assert (masks.decode(masks.as_rle(rle)) == video.visible[time, shape_id]).all()
    assert types == {0, 1, 2}


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_every_benchmark_reads_its_toy_layout(name, tmp_path, toy_videos):
    LAYOUTS[name](tmp_path, toy_videos[:2])
    benchmark = open_benchmark(name, tmp_path, "train" if name == "refytvos" else None)
    named = {video.name: video for video in toy_videos} | {f"{k:06d}": video for k, video in enumerate(toy_videos, 1)}
    for sample in benchmark.samples:
        video = named[sample.video]
        wanted = [q for q in video.queries if q.text == sample.expression]
        if name == "refdavis17":
            targets = [
                k
                for k, fact in enumerate(video.facts)
                if sample.expression.endswith(fact.shape) and fact.colour in sample.expression
            ]
        else:
            targets = list(wanted[0].targets)
        times = [int(frame) for frame in sample.frames]
        found = benchmark.masks(sample)
        ground_truth = video.union(targets)[times]
        union = found.any(0) if len(found) else np.zeros_like(ground_truth)
        assert (union == ground_truth).all(), sample.sample_id
        assert Path(benchmark.frame_path(sample, 0)).is_file()


def test_foreground_is_the_union_of_all_shapes(toy_root, toy_videos):
    benchmark = open_benchmark("revos", toy_root / "ReVOS", "valid")
    sample = benchmark.samples[0]
    assert (benchmark.foreground(sample) == toy_videos[2].union(range(len(toy_videos[2].facts)))).all()


def test_an_existing_world_is_not_overwritten(tmp_path):
    (tmp_path / "ReVOS").mkdir()
    with pytest.raises(FileExistsError, match="ReVOS exists"):
        make_world(tmp_path, train_videos=1, valid_videos=1, reasonvos_videos=1)


def test_several_processes_render_the_same_world(tmp_path):
    for workers in (1, 2):
        make_world(
            tmp_path / str(workers),
            train_videos=1,
            valid_videos=1,
            reasonvos_videos=0,
            frames=5,
            queries=2,
            workers=workers,
        )
    one, two = (sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*.*")) for name in "12")
    assert one == two and len(one) > 15
    assert all((tmp_path / "1" / path).read_bytes() == (tmp_path / "2" / path).read_bytes() for path in one)
