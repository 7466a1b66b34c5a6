"""Step 2 of the chain-of-thought data: a strong vision-language model explains, in three steps, how each target is
found.

    export OPENAI_API_KEY=...
    python training_data_construction/seed_cot_generation.py --data_root ReVOS --input_json meta_expressions_train_select.json \\
        --output ReVOS/cot --base_url https://ark.cn-beijing.volces.com/api/v3 --model
        doubao-1-5-thinking-vision-pro-250428

    python training_data_construction/seed_cot_generation.py --data_root toy/ReVOS --output toy/cot --teacher toy --keyframe_resize 112

Kill it at any moment and start it again with the same words: answers are journaled as they come, and none is paid for
twice. The key is read from OPENAI_API_KEY and written nowhere. It leaves in --output:

    journal.jsonl                     every answer, as it came, with what it cost and why it was not accepted
    cot_train.json, cot_val.json      the records
    rejected.json                     what was set aside, with the reasons
    llamafactory/                     the same records as a LLaMA-Factory data set

Exit status: 0 all expressions are accepted or set aside; 1 an error; 3 some are still open (budget, interruption, lost
    connections).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a script: its folder, not the project's, is on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tqdm import tqdm

from training_data_construction.budget import Budget, Pace
from training_data_construction.collect import Collector
from training_data_construction.cot_records import build_record, split_by_video, write_json
from training_data_construction.journal import Journal, JournalError
from training_data_construction.llamafactory_export import export_llamafactory
from training_data_construction.teacher_progress import Progress, read_progress
from training_data_construction.teacher_tasks import MAX_PER_VIDEO, TEACHER_FRAMES, TeacherTask, plan_tasks
from training_data_construction.teachers import TeacherError, load_teacher
from veason.data.revos import ReVOS
from veason.data.training import read_exclusions
from veason.errors import DataError, describe

OPEN = 3  # exit status


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data_root", default=os.environ.get("REVOS_ROOT"), help="the ReVOS folder; default: $REVOS_ROOT"
    )
    data.add_argument(
        "--input_json",
        default="meta_expressions_train_select.json",
        help="expressions, as a path or a name in --data_root",
    )
    data.add_argument(
        "--output",
        type=Path,
        default=os.environ.get("COT_ROOT"),
        help="folder of the journal and records; default: $COT_ROOT",
    )
    data.add_argument("--max_per_video", type=int, default=MAX_PER_VIDEO, help="expressions of one video (%(default)s)")
    data.add_argument("--sampled_frames", type=int, default=TEACHER_FRAMES, help="N of the training rule (%(default)s)")
    data.add_argument(
        "--keyframe_resize",
        type=int,
        default=560,
        help="side of the student's square frames in pixels (%(default)s; toy 112)",
    )
    data.add_argument(
        "--include_absent",
        action="store_true",
        help="also expressions whose target is not in the video, so that refusing is learned",
    )
    data.add_argument(
        "--absent_objects",
        choices=("zero", "drop"),
        default="zero",
        help="an object not seen in the keyframe: [0,0,0,0] or left out",
    )
    data.add_argument(
        "--box_decimals",
        type=int,
        default=2,
        help="decimals of a box's sides in pixels (%(default)s, as the seed writes them)",
    )
    data.add_argument(
        "--llamafactory",
        default=True,
        action=argparse.BooleanOptionalAction,
        help="also write a LLaMA-Factory data set, pictures included",
    )
    data.add_argument(
        "--exclude", help="text file of samples or videos to leave out, as python -m veason.audit writes it"
    )
    data.add_argument(
        "--on_bad_sample", choices=("raise", "skip"), default="raise", help="unreadable frames, missing masks"
    )
    data.add_argument(
        "--prompt_template", help="the student's question, as text or file, where the default is not used"
    )
    data.add_argument(
        "--val_ratio", type=float, default=0.0, help="share of the videos set apart for validation (%(default)s)"
    )
    data.add_argument("--seed", type=int, default=0, help="of the frames, the worked examples and the split")
    teacher = parser.add_argument_group("teacher")
    teacher.add_argument(
        "--teacher",
        default="openai",
        help="openai, toy, or package.module:name of a class with reason(sample, keyframe, times)",
    )
    teacher.add_argument("--base_url", help="an OpenAI-compatible server; OpenAI's own by default")
    teacher.add_argument("--model", help="the model's name at the server")
    teacher.add_argument(
        "--request_options",
        type=json.loads,
        default={"max_tokens": 2048},
        help="further fields of each request, as JSON",
    )
    teacher.add_argument("--max_words", type=int, default=500, help="a longer answer is asked for again (%(default)s)")
    teacher.add_argument("--workers", type=int, default=32, help="requests in flight (%(default)s)")
    teacher.add_argument(
        "--timeout", type=float, default=180.0, help="seconds until a request counts as lost (%(default)s)"
    )
    teacher.add_argument(
        "--tries", type=int, default=8, help="requests for one answer before it is left for the next run (%(default)s)"
    )
    teacher.add_argument(
        "--first_delay", type=float, default=1.0, help="seconds before the second try, doubled after each further one"
    )
    teacher.add_argument(
        "--max_requests", type=int, help="paid requests of this --output in all, earlier runs included"
    )
    teacher.add_argument(
        "--max_tokens_total", type=int, help="prompt and completion tokens in all, earlier runs included"
    )
    args = parser.parse_args(words)
    if not args.data_root:
        parser.error("give --data_root, or set REVOS_ROOT to the folder of ReVOS")
    if not args.output:
        parser.error("give --output, or set COT_ROOT to the folder that shall hold the records")
    return args


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status."""
    args = parse_arguments(words)
    try:
        benchmark = ReVOS(args.data_root, split="train", meta_file=_annotation(args.data_root, args.input_json))
        excluded = read_exclusions(args.exclude)
        tasks, bad = plan_tasks(
            benchmark,
            args.seed,
            args.include_absent,
            excluded,
            args.max_per_video,
            args.sampled_frames,
            args.on_bad_sample,
        )
        teacher = load_teacher(
            args.teacher,
            args.data_root,
            args.model,
            args.base_url,
            args.request_options,
            args.timeout,
            args.keyframe_resize,
        )
        with Journal(args.output / "journal.jsonl") as journal:
            progress = read_progress(journal.entries, tasks, teacher.size)
            collector = Collector(
                teacher=teacher,
                journal=journal,
                budget=Budget(args.max_requests, args.max_tokens_total),
                pace=Pace(args.tries, args.first_delay),
                workers=args.workers,
                max_words=args.max_words,
                skip_bad_samples=args.on_bad_sample == "skip",
            )
            asyncio.run(_collect(collector, tasks, progress))
        write_outputs(args, tasks, progress)
    except (DataError, TeacherError, JournalError, OSError) as error:
        print(f"error: {describe(error)}", file=sys.stderr)
        return 1
    return _summarize(collector, progress, bad)


async def _collect(collector: Collector, tasks: Sequence[TeacherTask], progress: dict[str, Progress]) -> None:
    """Runs the collector with a progress bar that tells the time left.

    The first interrupt lets the requests in flight end, the second does not.
    """
    states = progress.values()
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        collector.stop("interrupted")
        tqdm.write("waiting for the requests in flight; again to leave them", file=sys.stderr)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    aside = sum(not state.open and state.accepted is None for state in states)
    with tqdm(total=len(tasks), initial=sum(not state.open for state in states), desc="teacher", unit="expr") as bar:

        def report(closed: Progress) -> None:
            nonlocal aside
            aside += closed.accepted is None
            bar.set_postfix(
                requests=collector.budget.requests, tokens=collector.budget.tokens, set_aside=aside, refresh=False
            )
            bar.update()

        collector.report = report
        await collector.run(tasks, progress)


def write_outputs(args: argparse.Namespace, tasks: Sequence[TeacherTask], progress: dict[str, Progress]) -> None:
    """The records of what is accepted so far, as the seed's files and as a LLaMA-Factory data set, and what was set
    aside.
    """
    records, rejected = [], []
    for task in tasks:
        state = progress[task.sample.sample_id]
        if state.accepted is not None:
            options = (args.keyframe_resize, args.absent_objects, args.prompt_template, args.box_decimals)
            records.append(build_record(task, state.accepted, *options))
        elif not state.open:
            rejected.append(
                {
                    "sample_id": task.sample.sample_id,
                    "exp": task.sample.expression,
                    "refused": state.refused,
                    "reasons": state.reasons,
                }
            )
    train, val = split_by_video(records, args.val_ratio, args.seed)
    write_json(args.output / "cot_train.json", train)
    write_json(args.output / "cot_val.json", val)
    write_json(args.output / "rejected.json", rejected)
    if args.llamafactory:
        export_llamafactory(args.output / "llamafactory", {"train": train, "val": val}, args.keyframe_resize)


def _summarize(collector: Collector, progress: dict[str, Progress], bad: dict[str, str]) -> int:
    states = progress.values()
    accepted, still_open = sum(state.accepted is not None for state in states), sum(state.open for state in states)
    print(
        f"{accepted} accepted, {len(progress) - accepted - still_open} set aside, {still_open} open; "
        f"{collector.budget.requests} requests and {collector.budget.tokens} tokens in all"
    )
    for title, lines in (
        ("bad samples left out", [f"{name}: {why}" for name, why in bad.items()]),
        ("left open", collector.left_open),
    ):
        if lines:
            print(f"{title}: {len(lines)}\n" + "\n".join(f"  {line}" for line in lines[:10]))
    if still_open:
        print(f"stopped early ({collector.stopping or 'lost connections'}): start again with the same words to go on")
    return OPEN if still_open else 0


def _annotation(data_root: str, name: str) -> str:
    """The annotation file: a name in the data root, or a path of its own."""
    return name if (Path(data_root) / name).is_file() else str(Path(name).absolute())


if __name__ == "__main__":
    sys.exit(main())
