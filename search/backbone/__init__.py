"""Pretrained networks by their source, and the blocks that are found in their graph."""
