"""Tokens of the prompts, before a pixel is read: too long a prompt is refused by name, and replicas are balanced."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from tqdm import tqdm

from verl.protocol import GroupRequest, TrainingData
from verl.workers.sample_errors import load_sample


class PromptTooLong(ValueError):
    """A prompt beyond data.max_prompt_length. Nothing is cut: a cut prompt would lose images or the question."""


class ResponseTooLong(ValueError):
    """A response to learn beyond data.max_response_length: cut, it would teach to stop anywhere."""


class PromptLengths:
    """Counts prompts of one data set, each once.

    Args:
        data: gives the messages and image sizes of a prompt.
        count: tokens of (messages, image sizes), as `verl.workers.prompt_builder.PromptBuilder.length` counts them.
        limit: data.max_prompt_length.

    Attributes:
        depends_on_seed: whether a sample's prompt differs from episode to episode; data whose prompts do not says
            `depends_on_seed = False`.
    """

    def __init__(self, data: TrainingData, count: Callable[..., int], limit: int) -> None:
        self.data, self.count, self.limit = data, count, limit
        self.depends_on_seed: bool = getattr(data, "depends_on_seed", True)
        self._known: dict[tuple[int, int], tuple[int, list[tuple[int, int]]]] = {}

    def __call__(self, request: GroupRequest) -> int:
        """Tokens of the prompt, images expanded. Raises PromptTooLong, which names the sample."""
        tokens, _ = self._count(request)
        if tokens > self.limit:
            name = self.data.sample_id(request.index)
            raise PromptTooLong(
                f"{name}: the prompt has {tokens} tokens, data.max_prompt_length is {self.limit}; raise it, lower "
                "data.keyframe_resize or data.sampled_frames, or name the sample in data.exclude"
            )
        return tokens

    def image_sizes(self, request: GroupRequest) -> list[tuple[int, int]]:
        """(height, width) of the prompt's images, in pixels."""
        return self._count(request)[1]

    def longest(self, requests: Iterable[GroupRequest]) -> int:
        """Counts all of them, with a progress bar once it takes seconds, and returns the longest."""
        shown = tqdm(requests, desc="prompt lengths", delay=3, leave=False, disable=None)
        return max((self(request) for request in shown), default=0)

    def check_responses(self, indices: Iterable[int], count: Callable[[str], int], limit: int) -> None:
        """Refuses a response to learn that is longer than `limit`, before a run meets it. What a data set only makes on
        request (`response` is missing, or gives None) is counted when it is read.

        Args:
            count: tokens of a text. limit: data.max_response_length.

        Raises:
            ResponseTooLong: names the sample.
        """
        response = getattr(self.data, "response", None)
        if response is None:
            return
        for index in tqdm(indices, desc="response lengths", delay=3, leave=False, disable=None):
            text = response(index)
            if text is not None and (tokens := count(text)) > limit:
                name = self.data.sample_id(index)
                raise ResponseTooLong(
                    f"{name}: its response has {tokens} tokens, data.max_response_length is {limit}; raise it, or "
                    "name the sample in data.exclude"
                )

    def _count(self, request: GroupRequest) -> tuple[int, list[tuple[int, int]]]:
        key = (request.index, request.seed if self.depends_on_seed else 0)
        if key not in self._known:
            read = partial(self.data.messages_and_sizes, request.index, request.seed)
            messages, sizes = load_sample(self.data, request, read)
            self._known[key] = self.count(messages, sizes), list(sizes)
        return self._known[key]
