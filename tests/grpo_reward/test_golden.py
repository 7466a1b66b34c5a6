"""The published rule gives the published numbers: those the reference returned for every case that training meets."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from tests.score_answer import score_answer
from veason.data.examples import GroundTruth

CASES = [
    json.loads(line)
    for line in gzip.decompress((Path(__file__).parent / "golden" / "reward.jsonl.gz").read_bytes()).splitlines()
]
TOLERANCES = {"format": 1e-9, "spatial": 1e-9, "keyframe": 1e-6, "consistency": 5e-6, "total": 5e-6}


def decode(rles):
    return np.stack([coco.decode(rle) for rle in rles])


@pytest.mark.parametrize("case", CASES, ids=[f"{case['kind']}-{case['id']}" for case in CASES])
def test_case(case):
    boxes = json.loads(case["ground_truth"])
    count = len(case["frame_ids"])
    ground_truth = GroundTruth(
        case["frame_ids"], [[box["bbox_2d"] for box in boxes[str(i)]] for i in range(count)], decode(case["gt_mask"])
    )
    calls = []

    def tracker(found, keyframe):
        calls.append((found, keyframe))
        return decode(case["pred_masks"]) if case["pred_masks"] else None

    score = score_answer(case["predict_str"], ground_truth, tracker)
    values = {**score.parts, "total": score.total}
    for name, tolerance in TOLERANCES.items():
        assert values[name] == pytest.approx(case["expected"][name], abs=tolerance, rel=0), name

    expected = case["tracker_called_with"]
    assert len(calls) == (expected is not None)
    if expected:
        found, keyframe = calls[0]
        assert keyframe == expected["keyframe_idx"] and list(found.shape) == expected["boxes_shape"]
        if case["tracker_rows_unique"]:
            np.testing.assert_allclose(found, np.array(expected["boxes"], dtype=np.float64))


def test_every_kind_of_answer_is_there():
    assert len(CASES) == len({case["id"] for case in CASES}) == 440
    assert len({case["kind"] for case in CASES}) == 132
