"""The web page of `veason app`."""
