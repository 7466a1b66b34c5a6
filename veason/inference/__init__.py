"""Inference: a policy's answer about a video, parsed, and tracked into masks."""
