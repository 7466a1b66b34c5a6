"""A synthetic data set with a tiny policy, a tiny tracker and a rule-based teacher, for tests and demos."""
