"""Samples a balanced subset of the ReVOS training expressions.

    python training_data_construction/data_sampling.py --input_json ReVOS/meta_expressions_train_.json
    python training_data_construction/data_sampling.py --target_size 2000 --no_target_size 200   # in $REVOS_ROOT

There are four strata: referring or reasoning, with one or several objects. The quota of a stratum is the product of
its two marginal ratios times the target size, which keeps the proportions of types and object counts. Shortfalls are
filled at random from the other strata, and an excess by rounding is removed at random. Expressions with absent targets
(type 2) belong to no stratum; `--no_target_size` adds some. The order and all fields of the input are kept; videos
without a sampled expression are omitted.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script: replace its folder on the path by the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from veason.command_line import HelpFormatter, parse_arguments
from veason.data.annotation import as_list, as_mapping, check_type_id
from veason.data.sample import read_json
from veason.errors import DataError, describe
from veason.files import write_json

SampleKey = tuple[str, str]  # video, exp_id
Stratum = tuple[str, str]

TYPES = {0: "referring", 1: "reasoning"}
ABSENT = 2
STRATA: tuple[Stratum, ...] = tuple((kind, number) for kind in TYPES.values() for number in ("single", "multiple"))


def stratum_of(expression: Mapping[str, Any]) -> Stratum | None:
    """The stratum of an expression; None for an absent target or an expression without objects."""
    kind, objects = TYPES.get(expression["type_id"]), len(as_list(expression["obj_id"], "obj_id", empty=True))
    if kind is None or objects == 0:
        return None
    return kind, "single" if objects == 1 else "multiple"


def group_by_stratum(videos: dict[str, Any]) -> tuple[dict[Stratum, list[SampleKey]], list[SampleKey]]:
    """The expressions of each stratum, and those with absent targets, in the file's order."""
    strata: dict[Stratum, list[SampleKey]] = {stratum: [] for stratum in STRATA}
    absent: list[SampleKey] = []
    for video, entry in videos.items():
        for exp_id, expression in entry["expressions"].items():
            try:
                asked = as_mapping(expression, "it")
                check_type_id(asked["type_id"])
                stratum, is_absent = stratum_of(asked), asked["type_id"] == ABSENT
            except (KeyError, DataError) as error:
                reason = f"it has no {error}" if isinstance(error, KeyError) else error
                raise DataError(f"expression {exp_id} of video {video}: {reason}") from None
            if stratum is not None:
                strata[stratum].append((video, exp_id))
            elif is_absent:
                absent.append((video, exp_id))
    return strata, absent


def quotas(strata: dict[Stratum, list[SampleKey]], target_size: int) -> dict[Stratum, int]:
    """The quota of each stratum: the product of its marginal ratios times the target size, at most its own size."""
    total = sum(map(len, strata.values()))

    def ratio(side: int, value: str) -> float:
        return sum(len(keys) for stratum, keys in strata.items() if stratum[side] == value) / total

    return {(a, b): min(round(ratio(0, a) * ratio(1, b) * target_size), len(strata[a, b])) for a, b in strata}


def sample_keys(strata: dict[Stratum, list[SampleKey]], target_size: int, rng: random.Random) -> set[SampleKey]:
    """Samples `target_size` expressions, or all of them when there are fewer.

    Raises:
        DataError: there is no expression to sample, or `target_size` is below 1.
    """
    if target_size < 1:
        raise DataError(f"--target_size {target_size}: at least 1 is needed")
    if not any(strata.values()):
        raise DataError("no referring or reasoning expression (type_id 0 or 1) with an object: nothing can be sampled")
    wanted = quotas(strata, target_size)
    chosen = [key for stratum, keys in strata.items() for key in rng.sample(keys, wanted[stratum])]
    if len(chosen) > target_size:
        return set(rng.sample(chosen, target_size))
    taken = set(chosen)
    others = [key for keys in strata.values() for key in keys if key not in taken]
    return taken | set(rng.sample(others, min(target_size - len(chosen), len(others))))


def select_expressions(content: dict[str, Any], chosen: set[SampleKey]) -> dict[str, Any]:
    """The annotation file reduced to the chosen expressions."""
    videos = {}
    for video, entry in content["videos"].items():
        expressions = {
            exp_id: expression for exp_id, expression in entry["expressions"].items() if (video, exp_id) in chosen
        }
        if expressions:
            videos[video] = {**entry, "expressions": expressions}
    return {**content, "videos": videos}


def strata_table(strata: dict[Stratum, list[SampleKey]], absent: Sequence[SampleKey], chosen: set[SampleKey]) -> str:
    """A table of the strata's sizes before and after sampling; percentages are of the expressions with a target."""
    lines = [f"{'':<22}{'before':>16}{'after':>16}"]
    before = Counter({stratum: len(keys) for stratum, keys in strata.items()})
    after = Counter({stratum: sum(key in chosen for key in keys) for stratum, keys in strata.items()})
    for stratum in strata:
        cells = (
            f"{counts[stratum]:>8}{100 * counts[stratum] / max(counts.total(), 1):>6.1f} %"
            for counts in (before, after)
        )
        lines.append(f"{', '.join(stratum):<22}{''.join(cells)}")
    lines.append(f"{'all with a target':<22}{before.total():>8}{'':>8}{after.total():>8}")
    lines.append(f"{'absent':<22}{len(absent):>8}{'':>8}{sum(key in chosen for key in absent):>8}")
    return "\n".join(lines)


def read_annotation(path: Path) -> dict[str, Any]:
    """Reads the annotation file and checks that it has videos with expressions by id."""
    content = as_mapping(read_json(path, "input"), f"input {path}")
    videos = as_mapping(content.get("videos"), f"{path}: videos")
    for video, entry in videos.items():
        as_mapping(
            as_mapping(entry, f"{path}: video {video}").get("expressions"), f"{path}: video {video}: expressions"
        )
    return dict(content)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--input_json", help="default: $REVOS_ROOT/meta_expressions_train_.json")
    parser.add_argument("--output_json", help="default: meta_expressions_train_select.json beside the input")
    parser.add_argument("--target_size", type=int, default=10_000, help="expressions with a target to sample")
    parser.add_argument(
        "--no_target_size", "--absent_size", type=int, default=0, help="expressions with absent targets (type 2) to add"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    options = parse_arguments(parser, arguments)
    if not options.input_json and not os.environ.get("REVOS_ROOT"):
        raise SystemExit("data_sampling: set --input_json, or REVOS_ROOT to the folder of ReVOS")
    source = Path(options.input_json or Path(os.environ["REVOS_ROOT"]) / "meta_expressions_train_.json")
    output = Path(options.output_json or source.with_name("meta_expressions_train_select.json"))
    rng = random.Random(options.seed)
    try:
        if options.no_target_size < 0:
            raise DataError(f"--no_target_size {options.no_target_size}: at least 0 is needed")
        content = read_annotation(source)
        strata, absent = group_by_stratum(content["videos"])
        chosen = sample_keys(strata, options.target_size, rng)
        chosen |= set(rng.sample(absent, min(options.no_target_size, len(absent))))
        write_json(output, select_expressions(content, chosen), indent=4, ensure_ascii=False)
    except UnicodeEncodeError as error:
        raise SystemExit(f"data_sampling: {source} holds half of a character ({describe(error)})") from None
    except DataError as error:
        raise SystemExit(f"data_sampling: {error}") from None
    except OSError as error:
        raise SystemExit(f"data_sampling: {describe(error)}") from None
    print(strata_table(strata, absent, chosen))
    print(f"{len(chosen)} expressions written to {output}")


if __name__ == "__main__":
    main()
