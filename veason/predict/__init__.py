"""`veason predict`: segments your own videos."""
