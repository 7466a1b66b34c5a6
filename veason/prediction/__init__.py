"""What a prediction on somebody's own video is checked against before, and written as after."""
