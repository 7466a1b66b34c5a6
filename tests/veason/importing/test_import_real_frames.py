"""Ten clips of real frames, with masks on every fifth frame, are imported, audited and trained on."""

from __future__ import annotations

import json

from tests.real_clips import caption, write_clips
from tests.veason.importing.drawn import read_set, run
from veason.data.training import KeyframeTrainingData


def test_real_clips_become_training_data(tmp_path, capsys):
    names = list(write_clips(tmp_path / "in"))
    texts = {name: {"1": caption(name)} for name in names}
    (tmp_path / "captions.json").write_text(json.dumps(texts))
    given = (tmp_path / "in", "--output", tmp_path / "data", "--captions", tmp_path / "captions.json")
    assert run(*given, "--fps", 10) == 2  # a frame without a mask is not one without the object
    assert "frames have no annotation" in capsys.readouterr().err
    assert run(*given[:2], tmp_path / "set", *given[3:], "--fps", 2) == 0
    assert "audit: 0 samples to leave out" in capsys.readouterr().out
    found = read_set(tmp_path / "set")
    assert sorted(found) == sorted(names) and {len(each["frames"]) for each in found.values()} <= {5, 6}
    data = KeyframeTrainingData(tmp_path / "set", keyframe_resize=56)
    assert len(data) == 9 and all(data.example(index, 0).ground_truth.masks.any() for index in range(len(data)))
