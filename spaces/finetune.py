"""How deep should the backbone be unfrozen, at what learning rate, with which regularisation?

Run       python -m search.run --space finetune --data photos/ --backbone MobileNetV2
Cost      24 trials of at most 16 epochs; ASHA stops most of them after 2 or 6
Expect    on the built-in digits with tiny, seed 0: test accuracy 0.9777 in one run, a minute on two cores
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
    fixed={"plateau_patience": 2, "stop_patience": 5},
    when={"momentum": ("optimizer", "sgd")},
    # The deeper, the lower the rate: a high one destroys pretrained features before the head has learned to use them.
    start=[
        {"unfreeze_depth": 0, "learning_rate": 1e-2, "optimizer": "adam", "weight_decay": 1e-4, "dropout": 0.1},
        {"unfreeze_depth": 1, "learning_rate": 3e-3, "optimizer": "adam", "weight_decay": 1e-4, "dropout": 0.1},
        {"unfreeze_depth": "half", "learning_rate": 1e-3, "optimizer": "adam", "weight_decay": 1e-4, "dropout": 0.1},
        {"unfreeze_depth": "all", "learning_rate": 3e-4, "optimizer": "adam", "weight_decay": 1e-4, "dropout": 0.1},
    ],
    budget=Budget(trials=24, epochs=16, first_rung=2, reduction_factor=3),
)
