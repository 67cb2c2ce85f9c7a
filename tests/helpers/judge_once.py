"""Judges a pose checkpoint in float64; the first process writes the metrics and how many people each process saw.

python judge_once.py CHECKPOINT TARGET
"""

import json
import sys
from pathlib import Path

import torch

from bnc_repro.poses import task as poses
from bnc_repro.recipe import make_recipe
from bnc_repro.training import checkpoint, distributed

device, (source, target) = torch.device("cpu"), sys.argv[1:]
distributed.meet(device)
state = checkpoint.load(source)
task = poses.build(make_recipe(**state["recipe"]), device)
task.network.load_state_dict(state["network"])
task.network.double().eval()
task.network.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
seen = []
task.network.register_forward_hook(lambda module, inputs, outputs: seen.append(len(outputs)))
metrics = task.evaluate(task.network)
counts = distributed.gathered([sum(seen)])
if distributed.rank() == 0:
    Path(target).write_text(json.dumps({"metrics": metrics, "counts": counts}))
distributed.part()
