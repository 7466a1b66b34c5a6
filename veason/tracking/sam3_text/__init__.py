"""SAM 3's detector and tracker, prompted by a text: a baseline without a policy."""
