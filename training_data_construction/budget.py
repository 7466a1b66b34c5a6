"""Limits of teacher requests: a budget of requests and tokens, and rate limiting with backoff."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

LONG_WAIT = 10.0  # seconds; shorter waits are not shown
MAX_DELAY = 60.0  # seconds between two tries, where the server asks for no more


class BudgetExhausted(RuntimeError):
    """The next request would exceed the budget."""


class RequestBudget:
    """Requests and tokens, spent and in flight; a request starts only when it fits with those in flight.

    A request's tokens are known once it is answered. Until then, and where a server does not report them, it counts as
    the largest request so far, so the total exceeds the limit by at most the growth of the largest request.

    Args:
        max_requests: limit of billed requests; None: no limit.
        max_tokens: limit of prompt and completion tokens; None: no limit.
    """

    def __init__(self, max_requests: int | None = None, max_tokens: int | None = None):
        self.max_requests = max_requests
        self.max_tokens = max_tokens
        self.requests = 0
        self.tokens = 0
        self.in_flight = 0
        self._largest = 0
        self._changed = asyncio.Condition()

    @property
    def estimates(self) -> bool:
        """Whether a request's tokens can be estimated: one was reported."""
        return self._largest > 0

    def record(self, tokens: int | None) -> int:
        """Counts a billed request of this or an earlier run; returns its tokens, estimated for None."""
        tokens = self._largest if tokens is None else tokens
        self.requests += 1
        self.tokens += tokens
        self._largest = max(self._largest, tokens)
        return tokens

    async def reserve(self) -> None:
        """Waits until one more request fits.

        Raises:
            BudgetExhausted: it does not fit, and no request is in flight.
        """
        async with self._changed:
            while not self._fits():
                if self.in_flight == 0:
                    raise BudgetExhausted(f"the budget is exhausted: {self.requests} requests, {self.tokens} tokens")
                await self._changed.wait()
            self.in_flight += 1

    async def settle(self, tokens: int | None, billed: bool = True) -> int:
        """Ends a reserved request; returns what it counts.

        Args:
            tokens: its cost; None where it is not known.
        """
        async with self._changed:
            self.in_flight -= 1
            counted = self.record(tokens) if billed else 0
            self._changed.notify_all()
            return counted

    def _fits(self) -> bool:
        pending = self.in_flight + 1
        requests_fit = self.max_requests is None or self.requests + pending <= self.max_requests
        tokens_fit = self.max_tokens is None or (
            self.tokens < self.max_tokens and self.tokens + pending * self._largest <= self.max_tokens
        )
        return requests_fit and tokens_fit


@dataclass
class RateLimiter:
    """Retry delays: exponential backoff with jitter; a server's Retry-After delays all requests.

    Attributes:
        tries: requests for one answer before it is left to the next run.
        first_delay: seconds after the first failure, doubled after each further one up to `MAX_DELAY`; Retry-After may
            be longer.
        report: called with one line when a long wait begins.
    """

    tries: int = 8
    first_delay: float = 1.0
    report: Callable[[str], None] = lambda _: None
    _reported_until: float = 0.0  # time.monotonic()
    _blocked_until: float = 0.0  # time.monotonic()
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        """Ends all present and future waiting."""
        self._stopped.set()

    async def wait_until_allowed(self) -> None:
        """Waits until no Retry-After is pending."""
        while (remaining := self._blocked_until - time.monotonic()) > 0 and not self._stopped.is_set():
            await self._wait(remaining)

    async def back_off(self, failures: int, retry_after: float | None, why: str = "") -> None:
        """Waits after the `failures`-th failure (from 1) of one request, which `why` describes."""
        if retry_after is not None:
            self._blocked_until = max(self._blocked_until, time.monotonic() + retry_after)
        delay = min(self.first_delay * 2 ** (failures - 1), MAX_DELAY) * random.uniform(0.5, 1.0)
        delay = max(delay, retry_after or 0.0)
        if delay >= LONG_WAIT and time.monotonic() >= self._reported_until and not self._stopped.is_set():
            self._reported_until = time.monotonic() + delay  # one line, however many requests wait
            self.report(f"waiting {delay:.0f} s: {why}")
        await self._wait(delay)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)
