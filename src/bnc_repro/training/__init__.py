"""The visible loop, and what it needs: tasks, batches, rates, checkpoints, processes."""
