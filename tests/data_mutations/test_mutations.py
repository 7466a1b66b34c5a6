"""Damaged data sets end in one line that names what is wrong, or in a sample that is skipped: never in a traceback, a
hang, or a wrong example.

Every mutation of the catalogue is made in a small set in its authors' layout, which is then read by the audit, training
(as it is, skipping bad samples, leaving out what the audit lists), the teacher, sampling, and evaluation with scores.
"""

from __future__ import annotations

from functools import cache

import pytest

from tests.data_mutations.catalogue import CATALOGUE
from tests.data_mutations.judge import complaints
from tests.data_mutations.runner import Report, run_mutation


@cache
def whole_set(layout: str) -> Report:
    return run_mutation(None, layout)


@pytest.mark.parametrize("layout", ["revos", "reasonvos", "refdavis17", "mevis", "vicas", "cot"])
def test_a_whole_set_is_accepted_by_everybody(layout: str) -> None:
    report = whole_set(layout)
    assert not report.broken
    for consumer, outcome in report.outcomes.items():
        assert (outcome.error, outcome.refused, outcome.findings) == (None, {}, []), consumer
        assert outcome.results or consumer in ("audit", "sample")


@pytest.mark.parametrize("name", CATALOGUE)
def test_mutation(name: str) -> None:
    mutation = CATALOGUE[name]
    found = list(complaints(mutation, run_mutation(name, mutation.layout), whole_set(mutation.layout)))
    assert not found, "\n".join(found)


def test_the_catalogue_is_large_and_has_every_kind() -> None:
    assert len(CATALOGUE) >= 129
    assert {mutation.layout for mutation in CATALOGUE.values()} == {
        "revos",
        "reasonvos",
        "refdavis17",
        "mevis",
        "vicas",
        "cot",
    }
