"""The request: what to search, with which resources, on which data. All of it is checked before anything starts."""
