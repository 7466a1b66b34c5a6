"""Estimators and losses: pure functions of tensors, chosen by name.

Token arrays are [batch, response_length] with a mask of 0 and 1; log-probabilities are in nats. A function of one's own
is chosen as `package.module:name`. Each function cites where its formula comes from.
"""
