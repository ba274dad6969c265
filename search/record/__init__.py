"""A search's files: the history of its trials, and all that is made from it."""
