"""Finds images and their classes, checks, splits and decodes them, and augments them."""
