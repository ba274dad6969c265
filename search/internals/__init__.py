"""What is private to Ray, Optuna and Keras, and touched nowhere else: a new version of theirs fails here, by a test."""
