"""What `run_workers` does when a worker fails; Ray is a stub."""

import json
from types import SimpleNamespace

import pytest
from ray.exceptions import RayTaskError

from eval import evaluate
from eval.evaluation_options import EvaluateConfig
from veason.errors import DataError
from verl.single_controller import ClusterError


class FakeRay:
    """Actors that answer every batch with `outcome`: a list of ids, or an exception."""

    def __init__(self, outcome):
        self.outcome, self.started, self.killed = outcome, 0, 0

    def cluster_resources(self):
        return {}

    def remote(self, **_):
        return lambda _: SimpleNamespace(remote=self.start)

    def start(self, *_):
        self.started += 1
        return SimpleNamespace(run=SimpleNamespace(remote=lambda batch: tuple(batch)))

    def wait(self, references, num_returns):
        return references[:num_returns], references[num_returns:]

    def get(self, reference):
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return list(reference)

    def kill(self, _):
        self.killed += 1


def task_error(cause):
    return RayTaskError("run", "Traceback\nof\nmany\nlines", cause, proctitle="worker", ip="127.0.0.1")


@pytest.mark.parametrize(
    ("outcome", "raised", "message"),
    [
        (task_error(DataError("frame is missing: a.jpg")), DataError, r"^frame is missing: a\.jpg$"),
        (task_error(ValueError("no")).as_instanceof_cause(), ValueError, "many"),  # unforeseen: with its traceback
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (None, None, None),
    ],
)
def test_no_worker_outlives_the_run(monkeypatch, tmp_path, outcome, raised, message):
    fake = FakeRay(outcome)
    monkeypatch.setattr(evaluate, "ray", fake)
    monkeypatch.setattr(evaluate, "connect_ray", lambda _: None)
    config = EvaluateConfig("model", "data", str(tmp_path), workers=2)
    if raised:
        with pytest.raises(raised, match=message) as error:
            evaluate.run_workers(config, range(20))
        assert type(error.value) is raised or raised is ValueError
    else:
        evaluate.run_workers(config, range(20))
    assert fake.started == fake.killed == 2


def test_a_frame_size_that_the_policy_would_not_see_is_refused_before_ray(toy_world, tmp_path, monkeypatch, capsys):
    vision = {"patch_size": 14, "spatial_merge_size": 2}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl", "vision_config": vision}))
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setattr(evaluate, "run_workers", lambda *_: pytest.fail("started"))
    arguments = [f"model_path={tmp_path}", f"data_path={toy_world / 'ReasonVOS'}", f"output_path={tmp_path / 'run'}"]
    assert evaluate.main([*arguments, "sam2_checkpoint=random", "keyframe_resize=500"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "frames of 500 x 500 pixels" in line


def test_a_session_that_another_program_left_is_not_joined(monkeypatch):
    """Ray's own default joins the cluster that /tmp/ray/ray_current_cluster names, also one that is gone."""
    given = {}

    def init(**options):
        given.update(options)
        raise ConnectionError("no cluster")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", init)
    with pytest.raises(ClusterError):
        evaluate.run_workers(EvaluateConfig(), [0])
    assert given["address"] == "local"
