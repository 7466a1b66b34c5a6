"""The result for one expression, and the files it is written as."""
