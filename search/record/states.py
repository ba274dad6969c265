"""The states of a trial, and the reasons why it completed, as the record writes them."""

RUNNING, COMPLETED, STOPPED, DIVERGED, FAILED = "running", "completed", "stopped", "diverged", "failed"
ALL_EPOCHS, CONVERGED = "all epochs", "converged"  # why a trial completed
