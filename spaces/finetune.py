"""How deep should the backbone be unfrozen, at what learning rate, with which regularisation?

Run       python -m search.run --space finetune --data photos/ --backbone MobileNetV2
Cost      16 trials of at most 16 epochs; after 4 and 12 those stop that are behind, also in where their loss is heading
Expect    on the built-in digits with tiny, seed 0: test accuracy 0.9889 in ten runs, a minute on two cores; with nine
          other seeds 0.9800 to 0.9889; with --set confirm=3, some 60 % more epochs, 0.9800 to 0.9911
Compare   unfreeze_depth and learning_rate decide; the optimizer, weight decay and dropout are nuisances to be set well
"""

from search.space import Budget, Choice, Depth, Float, Space

space = Space(
    search={
        "unfreeze_depth": Depth(),
        "learning_rate": Float(1e-5, 1e-1, log=True),
        "optimizer": Choice(["adam", "sgd"]),
        "momentum": Float(0.8, 0.98),
        "weight_decay": Float(1e-6, 1e-1, log=True),
        "dropout": Float(0.0, 0.5),
    },
    fixed={"warmup_epochs": 2.0, "plateau_patience": 2, "stop_patience": 4, "soup": 8},
    when={"momentum": ("optimizer", "sgd")},
    # Low rates and high ones: how high a rate a network bears depends on it, and what it does not bear is stopped soon.
    start=[
        {"unfreeze_depth": "all", "learning_rate": 1e-3, "optimizer": "adam", "weight_decay": 1e-4, "dropout": 0.1},
        {"unfreeze_depth": "half", "learning_rate": 3e-3, "optimizer": "adam", "weight_decay": 1e-4, "dropout": 0.1},
        {
            "unfreeze_depth": "half",
            "learning_rate": 2e-2,
            "optimizer": "sgd",
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "dropout": 0.1,
        },
        {"unfreeze_depth": "all", "learning_rate": 1e-2, "optimizer": "adam", "weight_decay": 1e-4, "dropout": 0.1},
        {"unfreeze_depth": "half", "learning_rate": 1e-2, "optimizer": "adam", "weight_decay": 1e-4, "dropout": 0.1},
        {"unfreeze_depth": "all", "learning_rate": 3e-4, "optimizer": "adam", "weight_decay": 1e-4, "dropout": 0.1},
        {"unfreeze_depth": 0, "learning_rate": 1e-2, "optimizer": "adam", "weight_decay": 1e-4, "dropout": 0.1},
    ],
    budget=Budget(trials=16, epochs=16, first_rung=4, reduction_factor=3),
)
