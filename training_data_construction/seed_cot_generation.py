"""Chain-of-thought data, step 2: a vision-language model explains in three steps how each target is found.

    export OPENAI_API_KEY=...
    python training_data_construction/seed_cot_generation.py --data_root ReVOS --output ReVOS/cot \\
        --input_json meta_expressions_train_select.json \\
        --base_url https://ark.cn-beijing.volces.com/api/v3 --model doubao-1-5-thinking-vision-pro-250428

    python training_data_construction/seed_cot_generation.py --data_root toy/ReVOS --output toy/cot --teacher toy \\
        --keyframe_resize 112

A run may be killed at any time; the same command resumes it. Answers are journaled as they arrive, and none is
requested twice. The API key is read from OPENAI_API_KEY and written nowhere. Files in --output:

    journal.jsonl                     every answer, with its cost and the reason if it was not accepted
    cot_train.json, cot_val.json      the records
    rejected.json                     the rejected expressions, with the reasons
    llamafactory/                     the records as a LLaMA-Factory data set

Exit status: 0: all expressions are accepted or rejected; 1: an error; 3: some are open (budget, interruption, network).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a script: replace its folder on the path by the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training_data_construction.cot_records import build_record, split_by_video
from training_data_construction.journal import JournalError
from training_data_construction.llamafactory_export import export_llamafactory
from training_data_construction.task_states import TaskState
from training_data_construction.teacher_options import add_teacher_options
from training_data_construction.teacher_run import print_summary, run_teacher
from training_data_construction.teacher_tasks import MAX_PER_VIDEO, TEACHER_FRAMES, TeacherTask, plan_tasks
from training_data_construction.teachers import TeacherError, load_teacher
from veason.command_line import HelpFormatter, parse_arguments
from veason.data import BENCHMARKS, find_benchmark
from veason.data.revos import SELECTED_FILE, missing_selection
from veason.data.selection import read_exclusions
from veason.data.training_split import open_training_split
from veason.errors import DataError, describe
from veason.files import write_json
from veason.frames import ANCHOR_FRAMES, TIMESTAMP_MODES


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    _add_data_options(parser.add_argument_group("data"))
    _add_record_options(parser.add_argument_group("records"))
    add_teacher_options(parser.add_argument_group("teacher"))
    args = parse_arguments(parser, arguments)
    if not args.data_root:
        parser.error("set --data_root, or REVOS_ROOT to the folder of ReVOS")
    if not args.output:
        parser.error("set --output, or COT_ROOT to the folder of the records")
    return args


def _add_data_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--data_root", default=os.environ.get("REVOS_ROOT"), help="the data set's folder; default: $REVOS_ROOT")
    add("--benchmark", default="revos", help=f"{', '.join(BENCHMARKS)}, or package.module:Class (%(default)s)")
    add(
        "--input_json",
        help=f"annotation file, as a path or a name in --data_root, or a split; default for ReVOS: {SELECTED_FILE}",
    )
    add("--max_per_video", type=int, default=MAX_PER_VIDEO, help="most expressions per video (%(default)s)")
    add("--sampled_frames", type=int, default=TEACHER_FRAMES, help="N of the training frame rule (%(default)s)")
    add(
        "--anchor_frame",
        "--anchor",
        choices=ANCHOR_FRAMES,
        default=ANCHOR_FRAMES[0],
        help="how the keyframe is chosen (%(default)s)",
    )
    add(
        "--timestamp_mode",
        "--frame_index",
        choices=TIMESTAMP_MODES,
        default=TIMESTAMP_MODES[0],
        help="what a frame's timestamp is",
    )
    add("--include_no_target", "--include_absent", action="store_true", help="also expressions with absent targets")
    add("--exclude", help="text file of sample ids or videos to skip, as written by veason audit")
    add(
        "--on_bad_sample",
        choices=("raise", "skip"),
        default="raise",
        help="what to do about unreadable frames and missing masks",
    )
    add("--seed", type=int, default=0, help="seed of the frames, the worked examples and the split")


def _add_record_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--output",
        type=Path,
        default=os.environ.get("COT_ROOT"),
        help="folder of the journal and the records; default: $COT_ROOT",
    )
    add(
        "--keyframe_resize",
        type=int,
        default=560,
        help="side of the student's square frames in pixels (%(default)s; 112 for the toy world)",
    )
    add(
        "--absent_objects",
        choices=("zero", "drop"),
        default="zero",
        help="an object that is not visible in the keyframe: [0,0,0,0], or omitted",
    )
    add(
        "--coordinate_range",
        type=int,
        help="coordinates are from 0 to this (1000 for Qwen3-VL); default: pixels of the student's frames",
    )
    add("--box_decimals", type=int, help="of the coordinates; default: 2, as published, and 0 with --coordinate_range")
    add(
        "--llamafactory",
        default=True,
        action=argparse.BooleanOptionalAction,
        help="also write a LLaMA-Factory data set with its images",
    )
    add("--prompt_template", help="the student's prompt, as text or file; default: the published one")
    add("--val_ratio", type=float, default=0.0, help="share of the videos for validation (%(default)s)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status."""
    args = read_options(arguments)
    try:
        benchmark = open_training_split(args.benchmark, args.data_root, _annotation(args))
        excluded = read_exclusions(args.exclude)
        tasks, bad = plan_tasks(
            benchmark,
            args.seed,
            args.include_no_target,
            excluded,
            args.max_per_video,
            args.sampled_frames,
            args.on_bad_sample,
            args.anchor_frame,
            args.timestamp_mode,
        )
        teacher = load_teacher(
            args.teacher,
            args.data_root,
            args.model,
            args.base_url,
            args.request_options,
            args.timeout,
            args.keyframe_resize,
            args.coordinate_range,
        )
        skip = args.on_bad_sample == "skip"
        collector, states = run_teacher(args, args.output, tasks, teacher, skip_bad_samples=skip)
        write_outputs(args, tasks, states)
    except (DataError, TeacherError, JournalError, OSError) as error:
        print(f"error: {describe(error)}", file=sys.stderr)
        return 1
    accepted = sum(state.accepted is not None for state in states.values())
    return print_summary(collector, states, f"{accepted} accepted", bad)


def write_outputs(args: argparse.Namespace, tasks: Sequence[TeacherTask], states: dict[str, TaskState]) -> None:
    """Writes the records of the accepted answers, the LLaMA-Factory data set, and the rejected expressions."""
    records, rejected = [], []
    for task in tasks:
        state = states[task.sample.sample_id]
        if state.accepted is not None:
            options = (args.keyframe_resize, args.absent_objects, args.prompt_template, args.box_decimals)
            records.append(build_record(task, state.accepted, *options, coordinate_range=args.coordinate_range))
        elif state.rejected:
            rejected.append(
                {
                    "sample_id": task.sample.sample_id,
                    "exp": task.sample.expression,
                    "refused": state.refused,
                    "reasons": state.reasons,
                }
            )
    train, val = split_by_video(records, args.val_ratio, args.seed)
    write_json(args.output / "cot_train.json", train, ensure_ascii=False)
    write_json(args.output / "cot_val.json", val, ensure_ascii=False)
    write_json(args.output / "rejected.json", rejected, ensure_ascii=False)
    if args.llamafactory:
        export_llamafactory(args.output / "llamafactory", {"train": train, "val": val}, args.keyframe_resize)


def _annotation(args: argparse.Namespace) -> str | None:
    """The annotation file, as a name in the data root or a path, or the name of a split.

    Raises:
        DataError: it is neither; names the places.
    """
    root = Path(args.data_root)
    name = args.input_json or (SELECTED_FILE if args.benchmark == "revos" else None)
    if name is None or name in find_benchmark(args.benchmark).splits or (root / name).is_file():
        return name
    if Path(name).is_file():
        return str(Path(name).absolute())
    if root.is_dir() and args.input_json is None:
        raise DataError(missing_selection(root))
    if root.is_dir():
        raise DataError(f"--input_json {name}: no such file in --data_root {root}, nor as {Path(name).absolute()}")
    return name  # the folder is missing, which is said when it is opened


if __name__ == "__main__":
    sys.exit(main())
