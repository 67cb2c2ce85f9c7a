"""Kills the second process, when it was started once, at the end of its second epoch: the first is saved by then."""

import os
import signal

if os.environ.get("LOCAL_RANK") == "1" and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
    from bnc_repro.training import distributed

    epochs, agree = [], distributed.agree

    def fall(network):
        """Count the epochs, and fall at the second."""
        epochs.append(network)
        if len(epochs) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        agree(network)

    distributed.agree = fall
