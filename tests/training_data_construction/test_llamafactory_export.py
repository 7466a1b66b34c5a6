"""The LLaMA-Factory data set: what its loader reads, and that it holds the student's prompt."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from fake_teacher import VIDEOS
from PIL import Image

from training_data_construction.cot_records import build_record, flat_prompt, split_by_video
from training_data_construction.llamafactory_export import export_llamafactory
from training_data_construction.teacher_tasks import plan_tasks
from veason.data.revos import ReVOS
from veason.errors import DataError
from veason.frames import read_frame, resize_frame
from veason.prompts import SYSTEM_PROMPT, build_messages


@pytest.fixture(scope="module")
def built(revos):
    tasks, _ = plan_tasks(ReVOS(revos, split="train", meta_file="meta_expressions_train_select.json"), seed=0)
    return [build_record(task, "Step 1: a. Step 2: b. Step 3: c.", size=56) for task in tasks]


def test_what_the_loader_reads(built, tmp_path):
    train, val = split_by_video(built, 0.25, seed=0)
    export_llamafactory(tmp_path, {"train": train, "val": val}, size=56)
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert set(info) == {"veason_cot_train", "veason_cot_val"}
    for name, records in (("veason_cot_train", train), ("veason_cot_val", val)):
        entry = info[name]
        rows = json.loads((tmp_path / entry["file_name"]).read_text())
        assert len(rows) == len(records)
        for row, record in zip(rows, records, strict=True):
            turns = row[entry["columns"]["messages"]]
            assert [turn[entry["tags"]["role_tag"]] for turn in turns] == [
                entry["tags"]["user_tag"],
                entry["tags"]["assistant_tag"],
            ]
            assert row[entry["columns"]["system"]] == SYSTEM_PROMPT
            images = row[entry["columns"]["images"]]
            assert turns[0]["value"].count("<image>") == len(images)
            for source, image in zip(record["sampled_video_frames"], images, strict=True):
                stored = np.asarray(Image.open(tmp_path / image)).astype(int)
                seen = np.asarray(resize_frame(read_frame(source), 56)).astype(int)
                assert np.abs(stored - seen).mean() < 2.0  # JPEG
    pictures = list((tmp_path / "images_56").rglob("*"))
    assert not [path for path in pictures if path.suffix == ".part"]
    assert len([path for path in pictures if path.is_file()]) == len(
        {path for record in built for path in record["sampled_video_frames"]}
    )


def test_the_prompt_is_the_students(built):
    for record in built:
        messages = build_messages(record["exp"], record["frame_ids"], None, (56, 56))
        text = record["conversation"][0]["value"]
        assert text == flat_prompt(messages)
        parts = [part["text"] for part in messages[1]["content"] if part["type"] == "text"]
        assert text.split("<image>") == parts


def test_an_expression_with_the_tag_itself_is_named(built, tmp_path):
    record = {**built[0], "conversation": [{"from": "human", "value": "<image>" * 20}, built[0]["conversation"][1]]}
    with pytest.raises(DataError, match=f"{record['video']}/{record['exp_id']}: 20 <image> tags"):
        export_llamafactory(tmp_path, {"train": [record]}, size=56)
    assert not (tmp_path / "dataset_info.json").exists()


def test_split_by_video(built):
    assert split_by_video(built, 0.0, seed=0) == (built, [])
    train, val = split_by_video(built, 0.5, seed=0)
    assert {record["video"] for record in train} & {record["video"] for record in val} == set()
    assert len({record["video"] for record in val}) == VIDEOS // 2
    assert split_by_video(built, 0.5, seed=0) == (train, val)
    assert len({record["video"] for record in split_by_video(built, 0.01, seed=0)[1]}) == 1


def test_the_configuration_names_the_data_set():
    with open("configs/llamafactory_qwen2_5vl_lora_sft.yaml", encoding="utf-8") as file:
        config = yaml.safe_load(file)
    assert (config["stage"], config["finetuning_type"], config["template"]) == ("sft", "lora", "qwen2_vl")
    assert config["dataset"] == "veason_cot_train"
    assert config["image_max_pixels"] >= 560 * 560 >= config["image_min_pixels"]
