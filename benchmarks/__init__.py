"""Measurements: what the built-in backbone is worth, and how fast a search is beside what people use now."""
