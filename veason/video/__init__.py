"""A video as a sequence of frames, whatever it is given as."""
