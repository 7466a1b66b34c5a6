"""Pictures, plots and HTML pages."""
