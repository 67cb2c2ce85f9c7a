"""Kills the second process, when it was started once, at the end of its second epoch: the first is saved by then.

Both the fall and the second start are said on standard error: which of two dying processes is seen first is chance.
"""

import os
import signal
import sys

restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT") if os.environ.get("LOCAL_RANK") == "1" else None
if restarts == "1":
    print("the second process starts again", file=sys.stderr, flush=True)
if restarts == "0":
    from bnc_repro.training import distributed

    epochs, agree = [], distributed.agree

    def fall(network):
        """Count the epochs, and fall at the second."""
        epochs.append(network)
        if len(epochs) == 2:
            print("the second process falls", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        agree(network)

    distributed.agree = fall
