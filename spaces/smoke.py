"""Does everything work here? The smallest search that goes through every part.

Run       python -m search.run --space smoke
Cost      half a minute, most of it for starting up: 4 trials of at most 2 epochs
Expect    exit status 0 and a model in best/; its accuracy means nothing
Compare   nothing
"""

from search.space import Budget, Choice, Depth, Float, Space

space = Space(
    search={
        "unfreeze_depth": Depth(0, 1),
        "learning_rate": Float(1e-3, 1e-2, log=True),
        "optimizer": Choice(["adam", "sgd"]),
        "momentum": Float(0.8, 0.95),
    },
    when={"momentum": ("optimizer", "sgd")},
    fixed={"batch_size": 64, "stopping": "asha"},
    start=[
        {"unfreeze_depth": 0, "learning_rate": 1e-2, "optimizer": "adam"},
        {"unfreeze_depth": 1, "learning_rate": 3e-3, "optimizer": "sgd", "momentum": 0.9},
    ],
    budget=Budget(trials=4, epochs=2),
)
