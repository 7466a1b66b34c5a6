"""Expressions about a toy scene that refer to exactly their targets, each with its evidence.

Three types, as in ReVOS: 0 referring (appearance and direction), 1 reasoning (events over time), 2 absent target.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from veason.toy.facts import ObjectFacts
from veason.toy.scene import COLOURS, SHAPES

DIRECTION_PHRASES = {"left": "to the left", "right": "to the right", "up": "up", "down": "down"}


@dataclass(frozen=True)
class Query:
    """An expression, its type, the indices of its target objects, and a sentence that identifies them."""

    text: str
    type_id: int
    targets: tuple[int, ...]
    evidence: str


def scene_queries(facts: Sequence[ObjectFacts], rng: random.Random, count: int = 6, absent: float = 0.8) -> list[Query]:
    """Draws up to `count` expressions, half of them reasoning, and one of them absent with probability `absent`."""
    clear = {k for k, fact in enumerate(facts) if _clearly_visible(fact)}

    def usable(queries: Iterator[Query]) -> list[Query]:
        found = {query.text: query for query in queries if set(query.targets) <= clear}
        chosen = list(found.values())
        rng.shuffle(chosen)
        # about every third expression has several targets, when the scene has enough of them
        several = [query for query in chosen if len(query.targets) > 1]
        return [query for query in chosen if len(query.targets) == 1 or query in several[: 1 + (rng.random() < 0.3)]]

    absent_query = [rng.choice(list(absent_queries(facts, rng)))] if rng.random() < absent else []
    referring, reasoning = usable(referring_queries(facts)), usable(reasoning_queries(facts))
    remaining = count - len(absent_query)
    half = min(len(reasoning), (remaining + 1) // 2)
    chosen = referring[: remaining - half] + reasoning[:half] + absent_query
    rng.shuffle(chosen)
    return chosen


def _clearly_visible(fact: ObjectFacts) -> bool:
    """Whether at least half of the object is visible in three frames, or in all of a shorter video."""
    return sum(ratio >= 0.5 for ratio in fact.visible_ratio) >= min(3, len(fact.visible_ratio))


def referring_queries(facts: Sequence[ObjectFacts]) -> Iterator[Query]:
    """Type 0: by colour, shape, texture and direction."""
    for k, fact in enumerate(facts):
        yield Query(f"the {fact.name}", 0, (k,), f"There is one {fact.name}.")
        same_shape, same_colour = _alike(facts, fact, "shape"), _alike(facts, fact, "colour")
        same_look = _alike(facts, fact, "shape", "texture")
        if len(same_shape) == 1:
            yield Query(f"the {fact.shape}", 0, (k,), f"There is one {fact.shape}, and it is {fact.colour}.")
        if len(same_colour) == 1:
            yield Query(f"the {fact.colour} shape", 0, (k,), f"Only the {fact.shape} is {fact.colour}.")
        if len(same_look) == 1:
            yield Query(
                f"the {fact.texture} {fact.shape}", 0, (k,), f"Only the {fact.name} is a {fact.texture} {fact.shape}."
            )
        if 1 < len(same_colour) < len(facts):
            yield Query(f"all {fact.colour} shapes", 0, same_colour, f"{_names(facts, same_colour)} are {fact.colour}.")
        if 1 < len(same_shape) < len(facts):
            shapes = plural(fact.shape)
            yield Query(f"all {shapes}", 0, same_shape, f"{_names(facts, same_shape)} are {shapes}.")
    for direction, words in DIRECTION_PHRASES.items():
        moving = tuple(k for k, f in enumerate(facts) if f.direction == direction)
        if moving == tuple(
            k for k, f in enumerate(facts) if f.displacement_along(direction) > 10
        ):  # no other object moves that way diagonally
            if len(moving) == 1:
                yield Query(f"the shape moving {words}", 0, moving, f"Only the {facts[moving[0]].name} moves {words}.")
            elif 1 < len(moving) < len(facts):
                yield Query(f"all shapes moving {words}", 0, moving, f"{_names(facts, moving)} move {words}.")
    for a in range(len(facts)):
        for b in range(a + 1, len(facts)):
            text = f"the {facts[a].name} and the {facts[b].name}"
            yield Query(text, 0, (a, b), f"There is one {facts[a].name} and one {facts[b].name}.")


# Predicate, singular phrase ("the shape that ..."), plural phrase ("the shapes that ...").
BEHAVIOURS: tuple[tuple[Callable[[ObjectFacts], bool], str, str], ...] = (
    (lambda f: f.still, "never moves", "never move"),
    (lambda f: f.circles, "goes round in circles", "go round in circles"),
    (lambda f: f.absence is not None, "goes away and comes back", "go away and come back"),
    (lambda f: f.leaves is not None, "leaves the picture", "leave the picture"),
    (lambda f: f.enters is not None, "enters the picture", "enter the picture"),
    (lambda f: all(ratio > 0 for ratio in f.visible_ratio), "is in view all the time", "are in view all the time"),
)


def reasoning_queries(facts: Sequence[ObjectFacts]) -> Iterator[Query]:
    """Type 1: events over time."""
    leave = {k: f.leaves for k, f in enumerate(facts) if f.leaves is not None}
    enter = {k: f.enters for k, f in enumerate(facts) if f.enters is not None}
    yield from _extreme(facts, leave, min, "the shape that leaves first", "is the first to leave, after {}.")
    yield from _extreme(facts, leave, max, "the shape that leaves last", "is the last to leave, after {}.")
    yield from _extreme(facts, enter, min, "the shape that enters first", "is the first to enter, at {}.")
    yield from _extreme(facts, enter, max, "the shape that enters last", "is the last to enter, at {}.")
    speed, radius = [f.speed for f in facts], [f.radius for f in facts]
    yield from _outstanding(facts, speed, "the fastest shape", "moves faster than the others.")
    yield from _outstanding(facts, radius, "the biggest shape", "is larger than the others.")
    for test, one, several in BEHAVIOURS:
        found = _matching(facts, test)
        if len(found) == 1:
            yield Query(f"the shape that {one}", 1, found, f"Only the {facts[found[0]].name} {one}.")
        elif 1 < len(found) < len(facts):
            yield Query(f"the shapes that {several}", 1, found, f"{_names(facts, found)} {several}.")
    occluders = {k: f.hidden_behind for k, f in enumerate(facts) if f.hidden_behind is not None}
    for k, behind in occluders.items():
        occluder = facts[behind]
        evidence = f"The {facts[k].name} is hidden behind the {occluder.name} at {format_seconds(facts[k].hidden[0])}."
        if list(occluders.values()).count(behind) == 1:
            yield Query(f"the shape hidden behind the {occluder.name}", 1, (k,), evidence)
        if len(occluders) == 1:
            yield Query("the shape that hides", 1, (k,), evidence)
            yield Query("what another shape hides behind", 1, (behind,), evidence)


def absent_queries(facts: Sequence[ObjectFacts], rng: random.Random) -> Iterator[Query]:
    """Type 2: near misses (a colour and a shape of different objects) and events that do not happen."""
    names = {f.name for f in facts}
    near = [f"{a.colour} {b.shape}" for a in facts for b in facts if f"{a.colour} {b.shape}" not in names]
    far = [f"{c} {s}" for c in COLOURS for s in SHAPES if all(c != f.colour and s != f.shape for f in facts)]
    for name in (rng.choice(near) if near else None, rng.choice(far) if far else None):
        if name:
            yield Query(f"the {name}", 2, (), f"No {name} is seen.")
    free = [f.name for k, f in enumerate(facts) if all(k not in other.occluders for other in facts)]
    if free:
        name = rng.choice(free)
        yield Query(f"the shape hidden behind the {name}", 2, (), f"Nothing hides behind the {name}.")
    for test, one, _ in BEHAVIOURS[1:3]:
        if not _matching(facts, test):
            yield Query(f"the shape that {one}", 2, (), f"No shape {one}.")


def _matching(facts: Sequence[ObjectFacts], test: Callable[[ObjectFacts], bool]) -> tuple[int, ...]:
    return tuple(k for k, fact in enumerate(facts) if test(fact))


def _alike(facts: Sequence[ObjectFacts], fact: ObjectFacts, *names: str) -> tuple[int, ...]:
    """The objects that share the named attributes with `fact`, itself included."""
    return tuple(
        k for k, other in enumerate(facts) if all(getattr(other, name) == getattr(fact, name) for name in names)
    )


def _extreme(
    facts: Sequence[ObjectFacts], times: dict[int, int], select: Callable, text: str, evidence: str
) -> Iterator[Query]:
    """The query, when at least two objects have a time and one is two frames or more from the others."""
    if len(times) < 2:
        return
    best = select(times, key=lambda k: times[k])
    if all(abs(times[best] - time) >= 2 for k, time in times.items() if k != best):
        yield Query(text, 1, (best,), f"The {facts[best].name} {evidence.format(format_seconds(times[best]))}")


def _outstanding(facts: Sequence[ObjectFacts], values: Sequence[float], text: str, evidence: str) -> Iterator[Query]:
    """The query, when the largest value is 30 % above the second."""
    if len(facts) < 2:
        return
    first, second = sorted(range(len(facts)), key=lambda k: -values[k])[:2]
    if values[first] > 1.3 * values[second] + 1:
        yield Query(text, 1, (first,), f"The {facts[first].name} {evidence}")


def format_seconds(time: int) -> str:
    return "1 second" if time == 1 else f"{time} seconds"


def plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


def join_names(names: Sequence[str]) -> str:
    """Joins names as `the a, the b and the c`."""
    words = [f"the {name}" for name in names]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _names(facts: Sequence[ObjectFacts], numbers: Sequence[int]) -> str:
    text = join_names([facts[k].name for k in numbers])
    return text[0].upper() + text[1:]
