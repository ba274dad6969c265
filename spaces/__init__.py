"""The spaces that come with the project: what may vary, where to start, how much to spend."""
