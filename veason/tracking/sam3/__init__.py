"""SAM 3's tracker on the batched schedule of `veason.tracking.sam2`, whose network it descends from."""
