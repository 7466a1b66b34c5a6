"""What requests cost, over all runs: the journal's lines about them, and the budget that is restored from these.

Every request has a line before it is sent, {"sample_id", "sent": number}, and one with `"request": number` when it
ends: an answer, {"lost": why} when it may have been billed without an answer, or {"unbilled": why}. A request without
an end was in flight when the process was killed: it counts as lost.
"""

from __future__ import annotations

from typing import Any

from training_data_construction.budget import RequestBudget
from training_data_construction.journal import Journal


class RequestLog:
    """Journals the requests of a run and counts them in its budget.

    Args:
        journal: its entries restore the budget.
    """

    def __init__(self, journal: Journal, budget: RequestBudget):
        self.journal, self.budget = journal, budget
        self._sent = 0
        in_flight: dict[int, str] = {}
        for entry in journal.entries:
            if isinstance(number := entry.get("sent"), int):
                self._sent = max(self._sent, number)
                in_flight[number] = str(entry.get("sample_id"))
                continue
            in_flight.pop(entry.get("request", 0), None)
            if "lost" in entry:
                budget.record(_count(entry, "tokens"))
            elif "text" in entry and not entry.get("refused"):
                reported = [_count(entry, key) or 0 for key in ("prompt_tokens", "completion_tokens")]
                budget.record(_count(entry, "tokens") if "tokens" in entry else sum(reported))
        for number, sample_id in in_flight.items():
            self.lost(sample_id, number, "in flight when the run ended", budget.record(None))

    def sent(self, sample_id: str) -> int:
        """Journals a request that is about to be sent; returns its number."""
        self._sent += 1
        self.journal.append({"sample_id": sample_id, "sent": self._sent})
        return self._sent

    def lost(self, sample_id: str, number: int, why: str, tokens: int) -> None:
        """Journals a request that may have been billed and has no answer."""
        self.journal.append({"sample_id": sample_id, "lost": why, "request": number, "tokens": tokens})

    def unbilled(self, sample_id: str, number: int, why: str) -> None:
        """Journals a request that the server did not serve."""
        self.journal.append({"sample_id": sample_id, "unbilled": why, "request": number})

    def answered(self, entry: dict[str, Any], number: int, tokens: int) -> None:
        """Journals an answer, with what it counts in the budget."""
        self.journal.append({**entry, "request": number, "tokens": tokens})


def _count(entry: dict[str, Any], key: str) -> int | None:
    value = entry.get(key)
    return value if type(value) is int and value >= 0 else None
