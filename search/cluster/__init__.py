"""Joins or starts a Ray cluster, and checks its nodes before the first trial."""
