"""The model of a search in other formats, each run in its own runtime and compared."""
