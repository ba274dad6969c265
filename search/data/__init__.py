"""Images and their classes: found, checked, split, decoded, varied."""
