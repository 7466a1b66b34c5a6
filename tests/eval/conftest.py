"""A toy world on the disk, and a segmenter whose policy is a script and whose tracker fills boxes."""

import pytest

from tests.veason.scripted_parts import BoxTracker
from veason.answers import format_answer
from veason.inference.segmenter import Segmenter
from veason.toy import world


@pytest.fixture(scope="session")
def toy_world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    world.make_world(folder, train_videos=1, valid_videos=2, reasonvos_videos=2, frames=8, queries=4)
    return folder


class ScriptedPolicy:
    """Answers by the sample's name; after `stop_after` questions it fails like an interrupted process."""

    def __init__(self, stop_after=None):
        self.names, self.stop_after = [], stop_after

    def generate(self, questions):
        out = []
        for question in questions:
            self.names.append(question.name)
            if self.stop_after is not None and len(self.names) > self.stop_after:
                raise KeyboardInterrupt
            number = sum(map(ord, question.name))
            out.append(
                "what?"
                if number % 3 == 0
                else format_answer(f"<b>{question.name}</b>", number % 8, [[50, 50, 100 + number % 300, 400]])
            )
        return out


@pytest.fixture(scope="session")
def scripted():
    """scripted(stop_after=None) -> Segmenter."""
    return lambda **options: Segmenter(ScriptedPolicy(**options), BoxTracker())
