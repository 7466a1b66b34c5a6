"""All mutations by name."""

from __future__ import annotations

from tests.data_mutations import (
    annotation_mutations,
    frame_mutations,
    layout_mutations,
    mask_mutations,
    random_mutations,
    record_mutations,
)
from tests.data_mutations.mutation import Mutation

MODULES = (
    annotation_mutations,
    mask_mutations,
    frame_mutations,
    layout_mutations,
    record_mutations,
    random_mutations,
)


def build() -> dict[str, Mutation]:
    found: dict[str, Mutation] = {}
    for module in MODULES:
        for mutation in module.mutations():
            assert mutation.name not in found, mutation.name
            found[mutation.name] = mutation
    return found


CATALOGUE = build()
