"""Has a teacher write expressions for masks: for data that has masks and no text, or too little of it.

    export OPENAI_API_KEY=...
    veason data describe data/dogs --base_url http://localhost:8000/v1 --model Qwen/Qwen2.5-VL-72B-Instruct
    veason data describe data/dogs --referring 1 --reasoning 2 --max_requests 500 --base_url ... --model ...

DATA is a folder in the ReVOS form, such as one of `veason data import`. The teacher sees each object outlined on the
frames of the training rule, and writes referring and reasoning expressions, which are checked and added to the
annotation files beside those that are there; they are marked by `written_by`. The run may be stopped at any time; the
same command continues it, and no answer is requested twice. Files in DATA/describe:

    journal.jsonl      every answer, with its cost and the reason if it was not accepted
    rejected.json      objects without an accepted answer, with the reasons

Exit status: 0: all objects are described or rejected; 1: an error; 3: some are open (budget, interruption, network).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training_data_construction.answer_collector import AnswerCollector
from training_data_construction.expression_prompts import (
    KINDS,
    build_expression_content,
    check_expressions,
    read_expressions,
)
from training_data_construction.journal import JournalError
from training_data_construction.task_states import TaskState
from training_data_construction.teacher_options import add_teacher_options
from training_data_construction.teacher_run import print_summary, run_teacher
from training_data_construction.teacher_tasks import TEACHER_FRAMES, TeacherTask, annotated_frame_urls, plan_tasks
from training_data_construction.teachers import TeacherError, TeacherRequest, load_teacher
from veason.audit.command import audit, write_report
from veason.command_line import HelpFormatter, parse_arguments
from veason.data.revos import ReVOS
from veason.data.revos_objects import ReVOSObjects
from veason.data.sample import read_json
from veason.data.selection import read_exclusions
from veason.errors import DataError, describe
from veason.files import write_json
from veason.hub.data_card import CARD_FILE, write_card
from veason.importing.import_summary import next_command

AUTHOR = "written_by"  # key of an expression that a teacher wrote: the teacher's model
MAX_OBJECTS = 20  # per video


@dataclass(frozen=True)
class ExpressionRequest(TeacherRequest):
    """A request for expressions about one object."""

    expressions_per_object: tuple[tuple[str, int], ...] = ()
    category: str | None = None
    max_words: int = 25

    def content(self) -> list[dict[str, Any]]:
        pictures, asked = annotated_frame_urls(self.task), dict(self.expressions_per_object)
        timestamps = self.task.frame_ids
        return build_expression_content(timestamps, pictures, asked, self.category, self.reason, self.max_words)


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="veason data describe", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("data", type=Path, help="folder in the ReVOS form")
    group = parser.add_argument_group("expressions")
    group.add_argument("--referring", type=int, default=2, help="referring expressions of each object (%(default)s)")
    group.add_argument("--reasoning", type=int, default=1, help="reasoning expressions of each object (%(default)s)")
    group.add_argument("--max_per_video", type=int, default=MAX_OBJECTS, help="most objects per video (%(default)s)")
    group.add_argument("--sampled_frames", type=int, default=TEACHER_FRAMES, help="N of the frame rule (%(default)s)")
    group.add_argument("--exclude", help="text file of objects (video/object) or videos to skip")
    group.add_argument("--seed", type=int, default=0, help="of the frames that are shown (%(default)s)")
    add_teacher_options(parser.add_argument_group("teacher"))
    parser.set_defaults(max_words=25)
    args = parse_arguments(parser, arguments)
    if min(args.referring, args.reasoning) < 0 or args.referring + args.reasoning == 0:
        parser.error("--referring and --reasoning: at least 0 each, and one of them above 0")
    for name in ("max_words", "max_per_video", "sampled_frames", "workers", "tries"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)}: at least 1")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    args = read_options(arguments)
    folder = args.data / "describe"
    try:
        splits = annotated_splits(args.data)
        check_options(args, folder / "options.json")
        tasks = plan_object_tasks(args, splits)
        teacher = load_teacher(
            args.teacher, str(args.data), args.model, args.base_url, args.request_options, args.timeout
        )
        collector, states = run_teacher(
            args,
            folder,
            tasks,
            teacher,
            make_request=lambda task, _, reason: make_request(args, task, reason),
            check=lambda _, text, max_words: check_expressions(text, expressions_per_object(args), max_words),
        )
        added = sum(add_expressions(path, states, teacher.model) for path in splits.values())
        rejected = [
            {"sample_id": sample_id, "refused": state.refused, "reasons": state.reasons}
            for sample_id, state in states.items()
            if state.rejected
        ]
        write_json(folder / "rejected.json", rejected, ensure_ascii=False)
        if (args.data / CARD_FILE).is_file():
            write_card(args.data)
        return summarize(args.data, splits, collector, states, added)
    except (DataError, TeacherError, JournalError, OSError) as error:
        print(f"veason data describe: {describe(error)}", file=sys.stderr)
        return 1


def annotated_splits(root: Path) -> dict[str, Path]:
    """Split -> annotation file, of those at hand. Raises DataError when there is none."""
    if not root.is_dir():
        raise DataError(f"data folder is missing: {root}")
    found = {split: root / file for split, file in ReVOS.splits.items() if (root / file).is_file()}
    if not found:
        raise DataError(f"{root} has no {' or '.join(ReVOS.splits.values())}: see veason data import")
    return found


def check_options(args: argparse.Namespace, record: Path) -> None:
    """Record what every object is asked for. Raises DataError where an earlier run asked for something else."""
    if args.teacher == "toy":
        raise DataError("--teacher toy writes chains of thought alone, no expressions")
    asked = {**expressions_per_object(args), "seed": args.seed, "sampled_frames": args.sampled_frames}
    if record.is_file() and (earlier := read_json(record)) != asked:
        changed = [f"--{key} {earlier.get(key)} -> {asked[key]}" for key in asked if earlier.get(key) != asked[key]]
        raise DataError(f"{record.parent} has answers to other options ({', '.join(changed)}): use those, or remove it")
    write_json(record, asked)


def plan_object_tasks(args: argparse.Namespace, splits: dict[str, Path]) -> list[TeacherTask]:
    """One task for each object of all splits."""
    excluded = read_exclusions(args.exclude)
    tasks = []
    for split in splits:
        objects = ReVOSObjects(args.data, split)
        kept = {"exclude": excluded, "max_per_video": args.max_per_video, "sampled_frames": args.sampled_frames}
        found, bad = plan_tasks(objects, args.seed, on_bad_sample="skip", **kept)
        tasks += found
        for reason in bad.values():
            print(f"left out: {reason}")
    return tasks


def expressions_per_object(args: argparse.Namespace) -> dict[str, int]:
    """How many expressions of each kind an object gets."""
    return {kind: getattr(args, kind) for kind in KINDS}


def make_request(args: argparse.Namespace, task: TeacherTask, reason: str | None) -> TeacherRequest:
    """The request about one object; `reason` is why the last answer was not accepted."""
    expression = task.sample.expression
    category = None if expression == f"object {task.sample.exp_id}" else expression
    return ExpressionRequest(task, 0, reason, tuple(expressions_per_object(args).items()), category, args.max_words)


def add_expressions(path: Path, states: dict[str, TaskState], model: str) -> int:
    """Write the accepted expressions into an annotation file, in the place of those of an earlier run.

    Returns:
        How many there are.
    """
    content, added = read_json(path), 0
    for video, meta in content["videos"].items():
        kept = {key: each for key, each in meta.get("expressions", {}).items() if AUTHOR not in each}
        known = {each["exp"].lower() for each in kept.values()}
        number = 1 + max((int(key) for key in kept if key.isdigit()), default=-1)
        for name, anno_id in _objects(meta).items():
            new = [
                each for each in _accepted_expressions(states.get(f"{video}/{name}")) if each[1].lower() not in known
            ]
            for type_id, text in new:
                expression = {"exp": text, "obj_id": [name], "anno_id": [anno_id], "type_id": type_id, AUTHOR: model}
                kept[str(number)] = expression
                number += 1
            added += len(new)
        meta["expressions"] = kept
    write_json(path, content, ensure_ascii=False)
    return added


def _accepted_expressions(state: TaskState | None) -> list[tuple[int, str]]:
    """(type_id, expression) of an accepted answer."""
    found = read_expressions(state.accepted) if state is not None and state.accepted else None
    return [(type_id, text) for type_id, kind in enumerate(KINDS) for text in found[kind]] if found else []


def _objects(meta: dict[str, Any]) -> dict[str, Any]:
    """Object id -> annotation id; as `ReVOSObjects` finds them."""
    if meta.get("objects"):
        return {name: each["anno_id"] for name, each in meta["objects"].items()}
    pairs = (zip(each.get("obj_id", ()), each.get("anno_id", ())) for each in meta.get("expressions", {}).values())
    return {str(name): anno_id for pair in pairs for name, anno_id in pair}


def summarize(
    root: Path, splits: dict[str, Path], collector: AnswerCollector, states: dict[str, TaskState], added: int
) -> int:
    """Print what was done and what comes next; returns the exit status."""
    described = sum(state.accepted is not None for state in states.values())
    status = print_summary(collector, states, f"{described} objects described by {added} expressions")
    if added and not status:
        benchmarks = [ReVOS(root, split) for split in splits]
        findings = [finding for benchmark in benchmarks for finding in audit(benchmark)]
        print(next_command(root, added, len(write_report(root / "audit", benchmarks, findings, pictures=4))))
    return status


if __name__ == "__main__":
    sys.exit(main())
