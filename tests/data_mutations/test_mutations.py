"""Damaged data sets end in one line that names what is wrong, or in a sample that is skipped: never in a traceback, a
hang, or a wrong example.

Every mutation of the catalogue is made in a small set in its authors' layout, which is then read by the audit, training
(as it is, skipping bad samples, leaving out what the audit lists), the teacher, sampling, and evaluation with scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.data_mutations.catalogue import CATALOGUE
from tests.data_mutations.judge import complaints
from tests.data_mutations.runner import Report, run_mutation

LAYOUTS = ("revos", "reasonvos", "refdavis17", "mevis", "vicas", "visa", "cot")


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest) -> Iterator[Callable[[str | None, str], Report]]:
    """report(mutation, layout); those of the chosen tests are made two at a time, ahead of the tests."""
    with ThreadPoolExecutor(2) as pool:
        made = {(None, layout): pool.submit(run_mutation, None, layout) for layout in LAYOUTS}
        chosen = (item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec"))
        for name in filter(CATALOGUE.__contains__, chosen):
            made[name, CATALOGUE[name].layout] = pool.submit(run_mutation, name, CATALOGUE[name].layout)
        yield lambda name, layout: made[name, layout].result()
        for future in made.values():
            future.cancel()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_whole_set_is_accepted_by_everybody(layout: str, report: Callable[[str | None, str], Report]) -> None:
    whole = report(None, layout)
    assert not whole.broken
    for consumer, outcome in whole.outcomes.items():
        assert (outcome.error, outcome.refused, outcome.findings) == (None, {}, []), consumer
        assert outcome.results or consumer in ("audit", "sample")


@pytest.mark.parametrize("name", CATALOGUE)
def test_mutation(name: str, report: Callable[[str | None, str], Report]) -> None:
    mutation = CATALOGUE[name]
    found = list(complaints(mutation, report(name, mutation.layout), report(None, mutation.layout)))
    assert not found, "\n".join(found)


def test_the_catalogue_is_large_and_has_every_kind() -> None:
    assert len(CATALOGUE) >= 129
    assert {mutation.layout for mutation in CATALOGUE.values()} == set(LAYOUTS)
