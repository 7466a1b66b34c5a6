"""The policy: one packed sequence per forward pass, its log-probabilities, and their FLOPs."""
