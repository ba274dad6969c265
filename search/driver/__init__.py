"""One search from start to end: what to try, which trials stop, what is recorded. Only this package uses Ray Tune."""
