"""The rules that what became of a mutation has to obey, whatever it is, and those of its verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.data_mutations.consumers import Outcome
from tests.data_mutations.mutation import ACCEPTED, ANY, HARMLESS, REFUSED, REPORTED, Mutation
from tests.data_mutations.runner import Report

MAX_LINE = 2000  # characters of a message


def complaints(mutation: Mutation, report: Report, whole: Report) -> Iterator[str]:
    """Everything that is wrong with a report; `whole` is that of the set without a mutation."""
    for consumer, what in report.broken.items():
        yield f"{consumer}: {what}"
    outcomes: Mapping[str, Outcome] = report.outcomes  # type: ignore[assignment]
    expected: Mapping[str, Outcome] = whole.outcomes  # type: ignore[assignment]
    findings = outcomes["audit"].findings if "audit" in outcomes else []
    for consumer, outcome in outcomes.items():
        yield from _messages(consumer, outcome)
        yield from _silent_changes(consumer, outcome, expected[consumer.partition("_")[0]], mutation, findings)
    if "audit" in outcomes:
        yield from _audit_said_it(outcomes)
    yield from _verdict(mutation, outcomes)
    if mutation.affected is not None:
        yield from _skipped(mutation, outcomes.get("train_skipping", outcomes["train"]), expected["train"])


def _messages(consumer: str, outcome: Outcome) -> Iterator[str]:
    for message in [outcome.error, *(outcome.refused.values() if consumer.startswith("train") else ())]:
        if message is not None and (not message.isprintable() or not 0 < len(message) < MAX_LINE):
            yield f"{consumer}: not one line: {message[:200]!r}"
    if "Traceback" in outcome.printed:
        yield f"{consumer}: printed a traceback: {outcome.printed[-400:]}"


def _silent_changes(
    consumer: str, outcome: Outcome, whole: Outcome, mutation: Mutation, findings: list[dict[str, Any]]
) -> Iterator[str]:
    """A sample is that of the whole set, or somebody told; an accepted mutation may change texts and pictures."""
    if outcome.error is not None or mutation.verdict == ACCEPTED:
        return
    told = {name for finding in findings for name in finding["sample_ids"]}
    for name, ground_truth in whole.ground_truths.items():
        if name in told:
            continue
        if name in outcome.ground_truths:
            common = ground_truth.keys() & outcome.ground_truths[name].keys()
            if not common or any(ground_truth[part] != outcome.ground_truths[name][part] for part in common):
                yield f"{consumer}: {name} has another ground truth, and nothing was said"
            if mutation.verdict == HARMLESS and outcome.results[name] != whole.results[name]:
                yield f"{consumer}: {name} is shown differently"
        elif not outcome.refused and not outcome.printed.strip() and consumer != "train_excluding":
            yield f"{consumer}: {name} is gone, and nothing was said"


def _audit_said_it(outcomes: Mapping[str, Outcome]) -> Iterator[str]:
    """What anybody refuses, the audit has said; what it leaves to be trained on can be trained on."""
    audit = outcomes["audit"]
    if audit.error is not None:
        return
    refusers = [name for name, outcome in outcomes.items() if outcome.error or outcome.refused]
    refusers = [name for name in refusers if name not in ("audit", "sample")]
    if refusers and not audit.refused:
        yield f"the audit leaves nothing out, but {refusers} refuse: {outcomes[refusers[0]].error}"
    skipping = outcomes.get("train_skipping", Outcome())
    for name in outcomes["train"].refused.keys() | skipping.refused.keys():
        if name not in audit.refused and name.rpartition("/")[0] not in audit.refused:
            yield f"the audit does not leave out {name}: {audit.refused}"
    excluding = outcomes.get("train_excluding", Outcome())
    nothing_left = excluding.error is not None and "no sample to train on" in excluding.error
    if excluding.refused or (excluding.error and not nothing_left):
        yield f"what the audit leaves is refused: {excluding.error} {excluding.refused}"


def _verdict(mutation: Mutation, outcomes: Mapping[str, Outcome]) -> Iterator[str]:
    refusers = [name for name, outcome in outcomes.items() if name != "audit" and (outcome.error or outcome.refused)]
    audit = outcomes.get("audit", Outcome())
    if mutation.verdict == REFUSED and not {"train", "evaluate"} & set(refusers):
        yield f"neither training nor evaluation refuses it; the audit found {audit.findings or audit.error}"
    if mutation.verdict in (REPORTED, HARMLESS, ACCEPTED) and refusers:
        yield f"refused by {refusers}: {outcomes[refusers[0]].error} {outcomes[refusers[0]].refused}"
    if mutation.verdict == REPORTED and not audit.findings:
        yield "the audit says nothing"
    if mutation.verdict in (HARMLESS, ACCEPTED) and (audit.findings or audit.error):
        yield f"the audit complains: {audit.findings or audit.error}"
    assert mutation.verdict in (REFUSED, REPORTED, HARMLESS, ACCEPTED, ANY)


def _skipped(mutation: Mutation, outcome: Outcome, whole: Outcome) -> Iterator[str]:
    assert mutation.affected is not None
    left = whole.results.keys() - mutation.affected
    if left and outcome.error is not None:
        yield f"it cannot be skipped: {outcome.error}"
    elif outcome.results.keys() != left and outcome.error is None:
        yield f"with on_bad_sample=skip {sorted(outcome.results)} are left instead of {sorted(left)}: {outcome.refused}"
