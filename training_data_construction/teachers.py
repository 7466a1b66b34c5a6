"""Teachers, which write the reasoning: a vision-language model behind an API, or a reasoner in this process.

A teacher has `async answer(request) -> Completion`, and raises `TeacherError` (ends the run), `RequestRefused` (rejects
one expression) or `TemporaryError` (retried).
"""

from __future__ import annotations

import asyncio
import email.utils
import math
import os
import time
from dataclasses import dataclass, replace
from typing import Any, Protocol

import openai

from training_data_construction.completion import MAX_BYTES, Completion, InvalidCompletion, clean_text, parse_completion
from training_data_construction.reasoning_prompts import build_reasoning_content
from training_data_construction.teacher_tasks import TeacherTask, annotated_frame_urls
from veason.registry import load_by_name

FATAL_STATUS = {401, 402, 403, 404, 405}  # wrong key, account or address: no request can succeed
REQUEST_STATUS = {400, 413, 415, 422, 451}  # this request is invalid; ends the run if no request has succeeded yet
RETRY_STATUS = {408, 409, 425, 429}  # and every 5xx
MAX_RETRY_AFTER = 600.0  # seconds
MIN_KEY = 16  # characters; shorter ones stand for no key


class TeacherError(RuntimeError):
    """No request can succeed: wrong key, address, account or model; the message quotes the server."""


class RequestRefused(RuntimeError):
    """The server refuses this request; the message quotes the server."""


class TemporaryError(RuntimeError):
    """The request may succeed later.

    Attributes:
        retry_after: seconds of the server's Retry-After, or None.
        no_response: no readable response was received.
        billed: the server may have billed the request.
    """

    def __init__(self, message: str, retry_after: float | None = None, no_response: bool = False, billed: bool = False):
        super().__init__(message)
        self.retry_after = retry_after
        self.no_response = no_response
        self.billed = billed


@dataclass(frozen=True)
class TeacherRequest:
    """One request: the task, the index of its worked example, and why the previous answer was not accepted."""

    task: TeacherTask
    example: int
    reason: str | None = None

    def content(self) -> list[dict[str, Any]]:
        """The user turn with the annotated frames; they are read here, so only requests in flight hold images."""
        task = self.task
        pictures = annotated_frame_urls(task)
        return build_reasoning_content(
            task.sample.expression,
            task.timestamps,
            task.keyframe_timestamp,
            pictures,
            self.example,
            task.absent,
            self.reason,
        )


class Teacher(Protocol):
    """Answers requests.

    Attributes:
        model: its name in the journal.
        coordinate_range: its coordinates are from 0 to this; None if it writes no boxes.
    """

    model: str
    coordinate_range: int | None

    async def answer(self, request: TeacherRequest) -> Completion:
        """The answer to one request.

        Raises:
            TeacherError, RequestRefused, TemporaryError.
        """
        ...


class OpenAITeacher:
    """An OpenAI-compatible chat completions server that accepts images as data URLs.

    Args:
        model: the model's name at the server.
        base_url: for example http://localhost:8000/v1; None: OpenAI's own.
        key: the API key, used in request headers only.
        options: further fields of the request, for example {"max_tokens": 2048, "temperature": 0.7}.
        timeout: seconds until a request fails, from its start to the end of the reply.

    Raises:
        TeacherError: the key cannot be sent.
    """

    coordinate_range: int | None = None  # it writes no boxes

    def __init__(
        self, model: str, base_url: str | None, key: str, options: dict[str, Any] | None = None, timeout: float = 180.0
    ):
        self.model = model
        self.options = options or {}
        self._key, self._timeout = key.strip(), timeout
        if not (self._key.isascii() and self._key.isprintable()):  # HTTP libraries quote such a header in their errors
            raise TeacherError("OPENAI_API_KEY holds a character that no key has, such as a line break")
        self._client = openai.AsyncOpenAI(
            api_key=self._key,
            base_url=base_url,
            max_retries=0,
            timeout=timeout,
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),  # a redirected POST becomes a GET
        )

    async def answer(self, request: TeacherRequest) -> Completion:
        """Sends one request; the caller retries within its budget."""
        content = await asyncio.to_thread(request.content)
        call = self._client.chat.completions.with_streaming_response.create(
            model=self.model,
            messages=[{"role": "user", "content": content}],  # type: ignore[list-item, misc]
            extra_body=self.options,
        )
        try:
            async with asyncio.timeout(self._timeout), call as response:  # of the whole reply, also if it drips
                body = await _read_body(response)
            completion = parse_completion(body)
        except InvalidCompletion as error:
            raise _unreadable(self._quote(error)) from error
        except TimeoutError as error:
            raise _unreadable(f"the server did not answer within {self._timeout:g} s") from error
        except openai.APIStatusError as error:
            raise self._status_error(error) from error
        except openai.APIConnectionError as error:  # timeouts too
            connected = not type(error.__cause__).__name__.startswith("Connect")  # the HTTP client's ConnectError
            if connected and isinstance(error, openai.APITimeoutError):
                message = f"the server did not answer within {self._timeout:g} s"
            else:
                message = f"the connection failed: {self._quote(error.__cause__ or error)}"
            raise TemporaryError(message, no_response=True, billed=connected) from error
        except Exception as error:  # the HTTP library's own, while it reads a body
            raise _unreadable(f"the connection failed: {type(error).__name__}: {self._quote(error)}") from error
        return replace(
            completion, text=self._without_key(completion.text), model=self._without_key(completion.model or "")
        )

    def _status_error(self, error: openai.APIStatusError) -> Exception:
        url, text, status = error.request.url, error.response.text or str(error), error.status_code
        message = self._quote(f"{status} from {url.scheme}://{url.netloc.decode()}{url.path}: {text}")
        if 300 <= status < 400:
            target = self._quote(error.response.headers.get("location", "another address"))
            return TeacherError(f"{message.partition(': ')[0]} redirects to {target}: give that address by --base_url")
        if status in FATAL_STATUS or "insufficient_quota" in text:
            return TeacherError(message)
        if status in RETRY_STATUS or status >= 500:
            return TemporaryError(message, retry_after=read_retry_after(error.response.headers.get("retry-after")))
        if status in REQUEST_STATUS:
            return RequestRefused(message)
        return TeacherError(message)

    def _quote(self, text: object) -> str:
        """The server's text in one line, shortened and without the key."""
        return " ".join(clean_text(self._without_key(str(text))).split())[:600]

    def _without_key(self, text: str) -> str:
        """The text without the key, if that is one: a word for a server without keys may stand in any answer."""
        return text.replace(self._key, "[key]") if len(self._key) >= MIN_KEY else text


async def _read_body(response: Any) -> bytes:
    """The whole body. Raises InvalidCompletion when it is larger than any answer."""
    body = bytearray()
    async for chunk in response.iter_bytes():
        body += chunk
        if len(body) > MAX_BYTES:
            raise InvalidCompletion(f"the answer has more than {MAX_BYTES >> 20} MiB")
    return bytes(body)


def _unreadable(message: str) -> TemporaryError:
    return TemporaryError(message, no_response=True, billed=True)


class LocalTeacher:
    """A reasoner in this process, with `reason(sample, keyframe, indices) -> str`, run in a thread."""

    model = "local"

    def __init__(self, reasoner: Any):
        self._reasoner = reasoner
        given: int | None = getattr(reasoner, "coordinate_range", None)
        self.coordinate_range = given or getattr(reasoner, "size", None)

    async def answer(self, request: TeacherRequest) -> Completion:
        """Calls the reasoner; its exceptions end the run."""
        task = request.task
        return Completion(await asyncio.to_thread(self._reasoner.reason, task.sample, task.keyframe, task.frame_ids))


def read_retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header (a number or a date), at most MAX_RETRY_AFTER; None when it is invalid."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        parsed = email.utils.parsedate_tz(value)
        try:
            seconds = math.nan if parsed is None else email.utils.mktime_tz(parsed) - time.time()
        except (ValueError, OverflowError):  # not a valid date
            return None
    return None if math.isnan(seconds) else min(max(seconds, 0.0), MAX_RETRY_AFTER)


def load_teacher(
    name: str,
    data_root: str,
    model: str | None = None,
    base_url: str | None = None,
    options: dict[str, Any] | None = None,
    timeout: float = 180.0,
    size: int = 560,
    coordinate_range: int | None = None,
) -> OpenAITeacher | LocalTeacher:
    """The teacher of `--teacher`: `openai`, `toy`, or `package.module:name`, a factory that maps the data root to a
    reasoner.

    Args:
        size: side in pixels of the student's square frames, for the toy teacher.
        coordinate_range: coordinates of the toy teacher are from 0 to this; None: pixels of the student's frames.

    Raises:
        TeacherError: no key or no model.
        DataError: no such factory.
    """
    if name == "openai":
        key = os.environ.get("OPENAI_API_KEY")
        if not key:
            raise TeacherError("OPENAI_API_KEY is not set; any value will do for a server that needs no key")
        if not model:
            raise TeacherError("--model is missing: the model's name at the server")
        return OpenAITeacher(model, base_url, key, options, timeout)
    build = load_by_name(name, {"openai": "", "toy": "veason.toy.teacher:ToyTeacher"}, "--teacher")
    return LocalTeacher(
        build(data_root, size=size, coordinate_range=coordinate_range) if name == "toy" else build(data_root)
    )
