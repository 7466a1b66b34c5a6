"""Trackers of the transformers package: SAM 2, SAM 3's tracker and EdgeTAM on the schedule of its own sessions."""
