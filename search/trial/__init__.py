"""One configuration, trained: network, fit, callbacks, checkpoints, export. Knows nothing of Ray."""
