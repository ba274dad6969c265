"""Hyperparameter search for fine-tuning image models."""
