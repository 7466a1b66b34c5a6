"""Lists policies and trackers that can be downloaded; or writes a veason.json for the authors' policy, from your clone.

    veason models                                                        # sizes, licences, what is here
    veason models --repository Veason-R1 --output CHECKPOINT/veason.json
    veason models --repository Veason-R1 --output veason.json            # for settings=veason.json

The weights were trained with the authors' wording, which this project does not contain. It is read out of the clone by
parsing (nothing of it is run): from the data set of the evaluation, batch_eval_keyframe_sft_dataset_.py, the prompt,
the number of frames and their size, from multi_gpu_eval_keyframe_sft_mod_reason_vos.py nothing but that it is there.
What the code leaves to Qwen2.5-VL's generation_config.json is added: a repetition penalty of 1.05.
"""

from __future__ import annotations

import argparse
import ast
import string
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from veason.command_line import parse_arguments
from veason.errors import DataError, describe
from veason.files import write_json
from veason.inference_settings import InferenceSettings, parse_settings
from veason.model_info import SETTINGS_FILE
from veason.prompts import SYSTEM_PROMPT
from veason.weights_list import cached_models, weights_table

DATA_SET_FILE = "batch_eval_keyframe_sft_dataset_.py"  # of the published evaluation
TRAINING_FILE = "verl/utils/revos_keyframe_sft_dataset_mod.py"  # of the published GRPO
EVALUATION_FILE = "multi_gpu_eval_keyframe_sft_mod_reason_vos.py"
PLACEHOLDERS = {"num": "{count}", "Question": "{expression}"}  # the published names -> ours
FRAMES_TAG = "<video> \n"  # where the published code puts the frames, as `build_messages` does
ADVICE = (
    "",
    "GiB: the weights in memory (policies in bf16, trackers in fp32); what running and training take: docs/models.md",
    "here: in the repository or in the hub's cache. To download: hf download OWNER/NAME",
    "Where the authors' weights are, their repository and their paper say; docs/released_weights.md runs them.",
)
REPETITION_PENALTY = 1.05  # generation_config.json of Qwen/Qwen2.5-VL-3B-Instruct and 7B, which `generate` reads


def read_published_settings(repository: Path) -> InferenceSettings:
    """The settings of the released weights. Raises DataError: no clone of the original repository, or other code."""
    parsed = parse_python_file(repository / DATA_SET_FILE)
    if not (repository / EVALUATION_FILE).is_file():
        raise DataError(f"{repository} is no clone of the original repository: {EVALUATION_FILE} is missing")
    prompt = read_prompt(parsed, repository / DATA_SET_FILE)
    trained = read_prompt(parse_python_file(repository / TRAINING_FILE), repository / TRAINING_FILE)
    if prompt != trained:
        raise DataError(
            f"{repository}: {DATA_SET_FILE} and {TRAINING_FILE} differ in their prompts: which one is meant is open"
        )
    frames = read_argument_default(parsed, "num_sampled_frames", repository / DATA_SET_FILE)
    size = read_argument_default(parsed, "reference_image_resize", repository / DATA_SET_FILE)
    system = set(_keywords(parse_python_file(repository / EVALUATION_FILE), "system_prompt"))
    if system - {SYSTEM_PROMPT}:
        raise DataError(f"{repository / EVALUATION_FILE}: another system prompt than {SYSTEM_PROMPT!r}")
    content = {
        "prompt_template": prompt,
        "keyframe_resize": size,
        "sampled_frames": frames,
        "repetition_penalty": REPETITION_PENALTY,
        "answer_parser": "published",
        "source": "read from a clone of github.com/SitongGong/Veason-R1 by `veason models`",
    }
    return parse_settings(content, str(repository / DATA_SET_FILE))


def parse_python_file(path: Path) -> ast.Module:
    """The syntax tree of a Python file. Raises DataError."""
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing: give a clone of github.com/SitongGong/Veason-R1") from None
    except (SyntaxError, ValueError) as error:
        raise DataError(f"{path} cannot be parsed ({error})") from error


def read_prompt(tree: ast.Module, path: Path) -> str:
    """The text that follows the frames, with our placeholders; the last one that is assigned to `self.user_prompt`."""
    found = [node.value for node in ast.walk(tree) if isinstance(node, ast.Assign) and _is_user_prompt(node.targets)]
    texts = [text for value in found if (text := _constant_text(value)) is not None]
    if not texts:
        raise DataError(f"{path}: no text is assigned to self.user_prompt")
    text = texts[-1]
    if not text.startswith(FRAMES_TAG):
        raise DataError(f"{path}: the prompt does not begin with {FRAMES_TAG!r}, in whose place the frames stand")
    return convert_placeholders(text.removeprefix(FRAMES_TAG), path)


def convert_placeholders(text: str, path: Path) -> str:
    """A text for `str.format` with the published placeholders as one with ours, whose other braces stay as they are."""
    parts = []
    try:
        for literal, name, spec, conversion in string.Formatter().parse(text):
            parts.append(literal)
            if name is None:
                continue
            if name not in PLACEHOLDERS or spec or conversion:
                raise DataError(f"{path}: unknown placeholder {{{name}}} in the prompt")
            parts.append(PLACEHOLDERS[name])
    except ValueError as error:
        raise DataError(f"{path}: the prompt is no text for str.format ({error})") from error
    return "".join(parts)


def read_argument_default(tree: ast.Module, name: str, path: Path) -> int:
    """The default of an argument of the data set's constructor."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            arguments = [*node.args.posonlyargs, *node.args.args]
            defaults = dict(zip((each.arg for each in arguments[::-1]), node.args.defaults[::-1]))
            value = defaults.get(name)
            if isinstance(value, ast.Constant) and isinstance(value.value, int):
                return value.value
    raise DataError(f"{path}: no default of {name}")


def _is_user_prompt(targets: Sequence[ast.expr]) -> bool:
    return any(isinstance(target, ast.Attribute) and target.attr == "user_prompt" for target in targets)


def _constant_text(node: ast.expr) -> str | None:
    """The value of texts that are added up; None for anything that would have to be run."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _constant_text(node.left), _constant_text(node.right)
        return None if left is None or right is None else left + right
    return None


def _keywords(tree: ast.Module, name: str) -> Iterator[Any]:
    """The constants that a keyword argument is given anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == name and isinstance(node.value, ast.Constant):
            yield node.value.value


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="veason models", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repository", type=Path, help="a clone of github.com/SitongGong/Veason-R1")
    parser.add_argument("--output", type=Path, help="the file to write, or a checkpoint's folder")
    options = parse_arguments(parser, arguments)
    if options.repository is None and options.output is None:
        print("\n".join([*weights_table(cached_models()), *ADVICE]))
        return 0
    if options.repository is None or options.output is None:
        parser.error("--repository and --output belong together; without both the weights are listed")
    target = options.output / SETTINGS_FILE if options.output.is_dir() else options.output
    try:
        settings = read_published_settings(options.repository)
        write_json(target, settings.to_json(), ensure_ascii=False)
    except (DataError, OSError) as error:
        print(f"veason models: {describe(error)}", file=sys.stderr)
        return 2
    shown = f"{settings.sampled_frames} frames of {settings.keyframe_resize} x {settings.keyframe_resize} pixels"
    print(
        f"{target}: the authors' wording ({len(settings.prompt_template)} characters), {shown}, answer_parser=published"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
