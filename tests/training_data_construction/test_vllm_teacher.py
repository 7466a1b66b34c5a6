"""The teacher against vLLM's own OpenAI server with a tiny policy, through a proxy that injects failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter

import pytest
from fake_teacher import EXPRESSIONS, VIDEOS, Failure, good_answer, read_journal

from tests.processes import free_port
from training_data_construction.seed_cot_generation import main
from veason.toy.tiny_policy import write_policy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
KEY = "sk-of-this-test"
PRESENT = VIDEOS * (EXPRESSIONS - 1)


@pytest.fixture(scope="module")
def vllm_url(tmp_path_factory):
    """vLLM's server on a free port, asking for a key."""
    folder = tmp_path_factory.mktemp("vllm")
    environment = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_API_KEY": KEY,
    }
    write_policy(folder / "policy")
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(folder / "policy"),
        "--served-model-name",
        "teacher",
    ]
    command += [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--dtype",
        "float32",
        "--max-model-len",
        "4096",
        "--max-num-seqs",
        "8",
    ]
    command += ["--limit-mm-per-prompt", '{"image": 8, "video": 0}', "--skip-mm-profiling", "--enforce-eager"]
    with open(folder / "log.txt", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        while not healthy(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, (folder / "log.txt").read_text()[-3000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def healthy(url):
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except (urllib.error.URLError, ConnectionError):
        return False


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def words(revos, output, url, *more):
    fixed = [
        "--keyframe_resize",
        "56",
        "--first_delay",
        "0.05",
        "--workers",
        "4",
        "--request_options",
        '{"max_tokens": 24}',
    ]
    return ["--data_root", str(revos), "--output", str(output), "--base_url", url, "--model", "teacher", *fixed, *more]


def test_served_by_vllm_through_failures(revos, tmp_path, server, vllm_url):
    failures = {
        2: Failure(429, {"Retry-After": "0.2"}),
        3: Failure(500, body=b"oops"),
        5: Failure(cut=True),
        6: Failure(503),
        8: Failure(200, body=b'{"choices": [{"mess'),
        10: Failure(429),
    }

    def misbehave(number, question):
        if number in failures:
            return failures[number]
        time.sleep(0.3 if number == 7 else 0)
        return good_answer(question) if "the blue one" in question.lower() else None  # None: vLLM answers

    server.misbehave, server.upstream = misbehave, vllm_url
    assert main(words(revos, tmp_path, server.url)) == 0
    entries = read_journal(tmp_path)
    answers = [entry for entry in entries if "lost" not in entry]
    assert len(entries) - len(answers) == 2
    # An untrained policy says nothing usable: three answers for each of its expressions, each refused for a reason.
    rejected = json.loads((tmp_path / "rejected.json").read_text())
    assert len(rejected) == PRESENT - VIDEOS
    assert all(len(entry["reasons"]) == 3 for entry in rejected)
    assert Counter(Counter(entry["sample_id"] for entry in answers).values()) == {3: PRESENT - VIDEOS, 1: VIDEOS}
    served = [entry for entry in answers if entry["reason"] is not None]
    assert all(0 < entry["completion_tokens"] <= 24 and entry["prompt_tokens"] > 300 for entry in served)
    assert len(json.loads((tmp_path / "cot_train.json").read_text())) == VIDEOS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--model", "another"], "The model `another` does not exist"),
        (["--sampled_frames", "13"], "At most 8 image"),
    ],
)
def test_errors_quote_vllm(revos, tmp_path, vllm_url, capsys, change, said):
    assert main(words(revos, tmp_path, vllm_url, *change)) == 1
    assert said in capsys.readouterr().err
    assert not read_journal(tmp_path)


def test_vllm_refuses_another_key(revos, tmp_path, vllm_url, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    assert main(words(revos, tmp_path, vllm_url)) == 1
    said = capsys.readouterr().err
    assert "401" in said
    assert "Unauthorized" in said
