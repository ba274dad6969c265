"""How a trial stands, and why one ended: the words of the record."""

RUNNING, COMPLETED, STOPPED, DIVERGED, FAILED = "running", "completed", "stopped", "diverged", "failed"
ALL_EPOCHS, CONVERGED = "all epochs", "converged"  # why a trial completed
