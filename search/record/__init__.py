"""The files of a search: the history of its trials, and what is made from it."""
