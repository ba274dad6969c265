"""What a search finds, measured on tables of recorded learning curves.

    python -m benchmarks.quality.record digits-few    # train every configuration of a grid, once, and write its table
    make bench-quality                                # searches on the tables: this project's own, and others

`datasets` says what is recorded, `table` how it is kept, `replay` how a search runs on it; `ours` and `rivals` are what
is compared.
"""
