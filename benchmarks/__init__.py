"""Programs that measure speed and memory. Data sets with metrics are in `veason.data`."""
