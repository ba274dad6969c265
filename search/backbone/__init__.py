"""Pretrained networks from several sources, and the blocks found in their graphs."""
