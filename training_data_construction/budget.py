"""How much may be spent, and how fast: a budget of requests and tokens, and the pace that a busy server asks for."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field


class BudgetSpent(RuntimeError):
    """The next request would go beyond the budget."""


class Budget:
    """Requests and tokens spent so far and in flight; a request starts only when it fits beside those in flight.

    A request's tokens are known once it is answered. Until then it is reckoned at the largest seen so far, so the first
    is sent on credit and the total is exceeded by no more than the growth of the largest request.

    Args:
        max_requests: requests that the server may be paid for; None is no limit.
        max_tokens: prompt and completion tokens together; None is no limit.
    """

    def __init__(self, max_requests: int | None = None, max_tokens: int | None = None):
        self.max_requests = max_requests
        self.max_tokens = max_tokens
        self.requests = 0
        self.tokens = 0
        self.in_flight = 0
        self._largest = 0
        self._changed = asyncio.Condition()

    def record(self, tokens: int) -> None:
        """Counts a request that was paid for, also one of an earlier run."""
        self.requests += 1
        self.tokens += tokens
        self._largest = max(self._largest, tokens)

    async def reserve(self) -> None:
        """Waits until one more request fits.

        Raises:
            BudgetSpent: it does not fit, and nothing is in flight that could come out smaller.
        """
        async with self._changed:
            while not self._fits():
                if self.in_flight == 0:
                    raise BudgetSpent(f"the budget is spent: {self.requests} requests, {self.tokens} tokens")
                await self._changed.wait()
            self.in_flight += 1

    async def settle(self, tokens: int | None) -> None:
        """Ends a reserved request: what it cost in tokens, or None when the server did no work for it."""
        async with self._changed:
            self.in_flight -= 1
            if tokens is not None:
                self.record(tokens)
            self._changed.notify_all()

    def _fits(self) -> bool:
        coming = self.in_flight + 1
        requests_fit = self.max_requests is None or self.requests + coming <= self.max_requests
        tokens_fit = self.max_tokens is None or (
            self.tokens < self.max_tokens and self.tokens + coming * self._largest <= self.max_tokens
        )
        return requests_fit and tokens_fit


@dataclass
class Pace:
    """Waiting between tries: exponential with jitter, never shorter than the server asks, and everyone waits when it
    asks.

    Attributes:
        tries: requests for one answer before it is left for the next run.
        first_delay: seconds after the first failure; doubled after each further one.
        max_delay: the longest wait in seconds that the doubling reaches; what the server asks for may be longer.
    """

    tries: int = 8
    first_delay: float = 1.0
    max_delay: float = 60.0
    _closed_until: float = 0.0  # time.monotonic()
    _halted: asyncio.Event = field(default_factory=asyncio.Event)

    def halt(self) -> None:
        """Ends all waiting, also that to come: the run is stopping."""
        self._halted.set()

    async def gate(self) -> None:
        """Returns when no server's wish to wait is running."""
        while (left := self._closed_until - time.monotonic()) > 0 and not self._halted.is_set():
            await self._wait(left)

    async def back_off(self, failures: int, retry_after: float | None) -> None:
        """Waits after the failure number `failures` (from 1) of one question."""
        if retry_after is not None:
            self._closed_until = max(self._closed_until, time.monotonic() + retry_after)
        delay = min(self.first_delay * 2 ** (failures - 1), self.max_delay) * random.uniform(0.5, 1.0)
        await self._wait(max(delay, retry_after or 0.0))

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._halted.wait(), seconds)
