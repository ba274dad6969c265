"""How far does the head alone go? The baseline that fine-tuning must beat.

Run       python -m search.run --space linear_probe
Cost      12 trials of at most 30 epochs
Expect    on the built-in digits with tiny, seed 0: test accuracy 0.9120 in one run, half a minute on two cores
Compare   its best test accuracy with that of finetune, on the same data and seed
"""

from search.space import Budget, Float, Space

space = Space(
    fixed={"unfreeze_depth": 0, "optimizer": "adam"},
    search={
        "learning_rate": Float(1e-4, 1e-1, log=True),
        "weight_decay": Float(1e-6, 1e-1, log=True),
        "dropout": Float(0.0, 0.5),
    },
    start=[
        {"learning_rate": 1e-2, "weight_decay": 1e-4, "dropout": 0.0},
        {"learning_rate": 1e-3, "weight_decay": 1e-4, "dropout": 0.0},
    ],
    budget=Budget(trials=12, epochs=30, first_rung=3, reduction_factor=3),
)
