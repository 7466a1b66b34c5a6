"""Who writes the reasoning: a served vision-language model, or a reasoner in this process.

A teacher is anything with `async answer(question) -> Reply`. What goes wrong is one of three: `TeacherError` ends the
run, `QuestionRefused` sets one expression aside, `TeacherBusy` is tried again.
"""

from __future__ import annotations

import asyncio
import email.utils
import importlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import openai

from training_data_construction.teacher_prompts import teacher_content
from training_data_construction.teacher_tasks import TeacherTask, draw_pictures

STOPPING_STATUS = {
    401,
    402,
    403,
    404,
    405,
}  # the key, the account or the address is wrong: no later request can do better
QUESTION_STATUS = {400, 413, 415, 422, 451}  # this request is wrong; the first of a run to be answered so ends the run
PASSING_STATUS = {408, 409, 425, 429}  # and every 5xx
LONGEST_WAIT = 600.0  # seconds: what a server asks for beyond that is asked of it again then


class TeacherError(RuntimeError):
    """No request can succeed: key, address, account or model is wrong. The message holds the server's own words."""


class QuestionRefused(RuntimeError):
    """The server refuses this one question, in its own words."""


class TeacherBusy(RuntimeError):
    """The question may succeed later.

    Attributes:
        retry_after: seconds that the server asks to wait, None when it does not say.
        lost: nothing came back that could be read.
        paid: the server may have done the work all the same.
    """

    def __init__(self, message: str, retry_after: float | None = None, lost: bool = False, paid: bool = False):
        super().__init__(message)
        self.retry_after = retry_after
        self.lost = lost
        self.paid = paid


@dataclass(frozen=True)
class Question:
    """One request: the task, which worked example goes with it, and why the previous answer was not accepted."""

    task: TeacherTask
    example: int
    reason: str | None = None

    def content(self) -> list[dict[str, Any]]:
        """The user turn with the drawn frames; reads and encodes the pictures, so that only requests in flight hold
        any.
        """
        task = self.task
        pictures = draw_pictures(task)
        return teacher_content(
            task.sample.expression, task.frame_ids, task.keyframe, pictures, self.example, task.absent, self.reason
        )


@dataclass(frozen=True)
class Reply:
    """What a teacher answered, and what it cost in tokens."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    complete: bool = True  # False when the answer was cut at the server's token limit


class Teacher(Protocol):
    """Answers questions; see the module for what it may raise.

    Attributes:
        model: its name in the journal.
        size: side of the square frames in whose pixels it names places; None where it names none.
    """

    model: str
    size: int | None

    async def answer(self, question: Question) -> Reply:
        """Reasons about one question."""
        ...


class OpenAITeacher:
    """Any server that speaks OpenAI's chat completions, with pictures as data URLs.

    Args:
        model: the model's name at the server.
        base_url: the server, such as http://localhost:8000/v1; None is OpenAI's own.
        key: the key; it leaves this object in the request's header only.
        options: further fields of the request, such as {"max_tokens": 2048, "temperature": 0.7}.
        timeout: seconds until a request counts as lost.
    """

    size: int | None = None  # it names no pixels

    def __init__(
        self, model: str, base_url: str | None, key: str, options: dict[str, Any] | None = None, timeout: float = 180.0
    ):
        self.model = model
        self.options = options or {}
        self._key = key
        self._client = openai.AsyncOpenAI(api_key=key, base_url=base_url, max_retries=0, timeout=timeout)

    async def answer(self, question: Question) -> Reply:
        """Sends one request. Retries are the caller's, who knows the budget."""
        content = await asyncio.to_thread(question.content)
        try:
            completion = await self._client.chat.completions.create(
                model=self.model,
                messages=[{"role": "user", "content": content}],  # type: ignore[list-item, misc]
                extra_body=self.options,
            )
        except openai.APIStatusError as error:
            raise self._status_error(error) from error
        except openai.APIConnectionError as error:  # timeouts too
            reached = not type(error.__cause__).__name__.startswith(
                "Connect"
            )  # ConnectError, ConnectTimeout of the HTTP client
            timed_out = reached and isinstance(error, openai.APITimeoutError)
            words = (
                "the server did not answer in time"
                if timed_out
                else f"the connection failed: {self._words(error.__cause__ or error)}"
            )
            raise TeacherBusy(words, lost=True, paid=reached) from error
        except json.JSONDecodeError as error:  # a page, or a part of an answer, under status 200
            raise TeacherBusy(f"the answer is not JSON: {self._words(error.doc)}", lost=True, paid=True) from error
        except openai.OpenAIError as error:
            raise TeacherBusy(f"the answer could not be read: {self._words(error)}", lost=True, paid=True) from error
        return self._read(completion)

    def _read(self, completion: Any) -> Reply:
        choices = getattr(completion, "choices", None)  # a proxy may send a page, or an error, under status 200
        if not choices or getattr(choices[0], "message", None) is None:
            raise TeacherBusy(f"the answer holds no choice: {self._words(completion)}", lost=True, paid=True)
        usage = getattr(completion, "usage", None)
        return Reply(
            text=choices[0].message.content or "",
            prompt_tokens=getattr(usage, "prompt_tokens", 0) or 0,
            completion_tokens=getattr(usage, "completion_tokens", 0) or 0,
            complete=choices[0].finish_reason != "length",
        )

    def _status_error(self, error: openai.APIStatusError) -> Exception:
        words = self._words(f"{error.status_code} from {error.request.url}: {error.response.text or error}")
        if error.status_code in STOPPING_STATUS or "insufficient_quota" in str(error.body):
            return TeacherError(words)
        if error.status_code in PASSING_STATUS or error.status_code >= 500:
            return TeacherBusy(words, retry_after=read_retry_after(error.response.headers.get("retry-after")))
        if error.status_code in QUESTION_STATUS:
            return QuestionRefused(words)
        return TeacherError(words)

    def _words(self, said: object) -> str:
        """What the server said, shortened, without the key in case it sent it back."""
        return " ".join(str(said).replace(self._key, "[key]").split())[:600]


class LocalTeacher:
    """A reasoner in this process: an object with `reason(sample, keyframe, times) -> str`, such as the toy world's, run
    in a thread.
    """

    model = "local"

    def __init__(self, reasoner: Any):
        self._reasoner = reasoner
        self.size: int | None = getattr(reasoner, "size", None)

    async def answer(self, question: Question) -> Reply:
        """Calls the reasoner; what it raises ends the run."""
        task = question.task
        return Reply(await asyncio.to_thread(self._reasoner.reason, task.sample, task.keyframe, task.frame_ids))


def read_retry_after(value: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, which holds seconds or a date, at most LONGEST_WAIT; None when it holds
    neither.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        parsed = email.utils.parsedate_tz(value)
        try:
            seconds = math.nan if parsed is None else email.utils.mktime_tz(parsed) - time.time()
        except (ValueError, OverflowError):  # no day of any calendar
            return None
    return None if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_WAIT)


def load_teacher(
    name: str,
    data_root: str,
    model: str | None = None,
    base_url: str | None = None,
    options: dict[str, Any] | None = None,
    timeout: float = 180.0,
    size: int = 560,
) -> OpenAITeacher | LocalTeacher:
    """The teacher of the command line: `openai`, `toy`, or `package.module:name`, which is called with the data root
    and gives a reasoner.

    Args:
        size: side in pixels of the student's square frames, in which the toy teacher names places.

    Raises:
        TeacherError: no key, no model, or no such module.
    """
    if name == "openai":
        key = os.environ.get("OPENAI_API_KEY")
        if not key:
            raise TeacherError("OPENAI_API_KEY is not set; a server of one's own that asks for no key takes any value")
        if not model:
            raise TeacherError("--model is missing: the model's name at the server")
        return OpenAITeacher(model, base_url, key, options, timeout)
    module_name, _, attribute = ("veason.toy.teacher:ToyTeacher" if name == "toy" else name).partition(":")
    if not attribute:
        raise TeacherError(f"--teacher {name}: neither openai, toy nor package.module:name")
    try:
        build: Callable[..., Any] = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise TeacherError(f"--teacher {name}: {error}") from error
    return LocalTeacher(build(data_root, size=size) if name == "toy" else build(data_root))
