"""The policy: one packed row per forward, its log-probabilities, and what they cost."""
