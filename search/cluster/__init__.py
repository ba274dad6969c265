"""Ray, joined or started, and its nodes, checked before the first trial."""
