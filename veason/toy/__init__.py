"""A small world to run everything in: videos that are drawn, a policy and a tracker of a few megabytes, a teacher that
knows the scene.
"""
