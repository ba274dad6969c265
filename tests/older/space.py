"""What the recorded search beside it was asked: the head alone, for many epochs."""

from search.space import Budget, Float, Space

space = Space(
    search={"learning_rate": Float(1e-4, 1e-2, log=True)},
    fixed={"stopping": "none", "batch_size": 128, "stop_patience": 60},
    budget=Budget(trials=3, epochs=60),
)
