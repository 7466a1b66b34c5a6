"""The parts of the SAM 2 tracker: loading, frames, the order of visits, and the network's steps over batches of
objects.
"""
