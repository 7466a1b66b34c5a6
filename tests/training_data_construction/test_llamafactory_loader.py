"""LLaMA-Factory's own argument parser, loader, converter and template on our configuration and data set; runs where it
is installed.

pip install llamafactory==0.9.5   (in an environment of its own: it asks for an older transformers)
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from training_data_construction.cot_records import build_record
from training_data_construction.llamafactory_export import export_llamafactory
from training_data_construction.teacher_tasks import plan_tasks
from veason.data.revos import ReVOS
from veason.prompts import build_messages

RECIPE = "configs/llamafactory_qwen2_5vl_lora_sft.yaml"

pytest.importorskip("llamafactory", reason="LLaMA-Factory is not installed", exc_type=ImportError)


REAL_POLICY = """
import sys
from tests.qwen_vocabulary import qwen_tokenizer
from veason.toy.tiny_policy import write_policy
from veason.toy.tiny_policy_config import PolicySize
size = PolicySize(hidden_size=64, heads=2, kv_heads=1, intermediate_size=64, vision_hidden_size=32, vision_heads=2)
write_policy(sys.argv[1], size, tokenizer=qwen_tokenizer())
"""


@pytest.fixture(scope="module", params=["toy", "real"])
def rows(request, revos, tmp_path_factory):
    """(record, LLaMA-Factory's row, folder) for every record, and its tokenizer and processor; with the toy vocabulary
    and with that of Qwen2.5.
    """
    folder = tmp_path_factory.mktemp("llamafactory")
    tasks, _ = plan_tasks(ReVOS(revos, split="train", meta_file="meta_expressions_train_select.json"), seed=0)
    records = [build_record(task, "Step 1: a. Step 2: b. Step 3: c.", size=56) for task in tasks]
    export_llamafactory(folder, {"train": records}, size=56)
    toy = ["-m", "veason.toy.tiny_policy", "--output", str(folder / "policy")]
    subprocess.run(
        [sys.executable, *(toy if request.param == "toy" else ["-c", REAL_POLICY, str(folder / "policy")])], check=True
    )
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    with open(RECIPE, encoding="utf-8") as file:
        config = yaml.safe_load(file)
    config |= {
        "model_name_or_path": str(folder / "policy"),
        "dataset_dir": str(folder),
        "output_dir": str(folder / "out"),
    }
    config |= {"bf16": False, "use_cpu": True, "preprocessing_num_workers": 1, "dataloader_num_workers": 0}
    model_args, data_args, training_args, _, _ = get_train_args(config)
    modules = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(modules["tokenizer"], data_args)
    data = get_dataset(template, model_args, data_args, training_args, stage="sft", **modules)["train_dataset"]
    return records, list(data), modules["tokenizer"], modules["processor"]


def test_its_tokens_are_those_of_our_prompt_and_answer(rows):
    from PIL import Image

    records, loaded, tokenizer, processor = rows
    assert len(loaded) == len(records)
    for record, row in zip(records, loaded, strict=True):
        text = processor.apply_chat_template(
            build_messages(record["exp"], record["frame_ids"], None, (56, 56)), add_generation_prompt=True
        )
        images = [Image.open(path) for path in row["images"]]
        assert [image.size for image in images] == [(56, 56)] * len(record["frame_ids"])
        expected = processor(text=[text], images=images)["input_ids"][0]
        prompt = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100]
        answer = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
        assert prompt == list(expected)
        assert tokenizer.decode(answer).strip() == record["conversation"][1]["value"] + "<|im_end|>"


@pytest.mark.timeout(600)
def test_two_steps_and_the_export_by_the_documented_commands(rows, tmp_path):
    """The data set is used as it was written; the commands are those at the head of the recipe."""
    records, *_ = rows
    exported = Path(rows[1][0]["images"][0]).parents[3]
    header = Path(RECIPE).read_text(encoding="utf-8").partition("###")[0].replace("#", "").replace("\\\n", " ")
    train, export = (line.split() for line in header.splitlines() if line.strip().startswith("llamafactory-cli"))
    own = {
        "ReVOS/cot/llamafactory": str(exported),
        "checkpoints/sft": str(tmp_path / "sft"),
        "checkpoints/sft_merged": str(tmp_path / "merged"),
        "Qwen/Qwen2.5-VL-3B-Instruct": str(exported / "policy"),
        "llamafactory-cli": "llamafactory.cli",
    }
    small = "max_steps=2 bf16=false use_cpu=true preprocessing_num_workers=1 dataloader_num_workers=0 plot_loss=false"
    for command in ([*train, f"model_name_or_path={exported / 'policy'}", *small.split()], export):
        words = ["=".join(own.get(part, part) for part in word.split("=")) for word in command]
        done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert len(records) >= 2 and any((tmp_path / "merged").glob("*.safetensors"))
