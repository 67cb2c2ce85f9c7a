"""Trains in float64, with batch statistics frozen and the classifier evaluated exactly; the first process writes the
losses of all steps and the curve.

    python train_exactly.py RECIPE_AS_JSON TARGET
"""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from bnc_repro.images import task as images
from bnc_repro.recipe import make_recipe
from bnc_repro.training import distributed, loop

device, (values, target) = torch.device("cpu"), sys.argv[1:]
distributed.meet(device)
recipe = make_recipe(**json.loads(values))
task = images.build(recipe, device)
task.network.double()
task.network.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
task.network.weight_binarizer.tabulated = False
for module in task.network.modules():
    if isinstance(module, nn.BatchNorm2d):
        module.eval()
        module.train = lambda mode=True, module=module: module
steps, look = [], loop.stop_if_diverged


def noted(losses, *others):
    """Keep each step's loss before it is looked at."""
    steps.append(losses[-1].item())
    look(losses, *others)


loop.stop_if_diverged = noted
curve = loop.train(task, recipe, Path(target).with_suffix(""), device)
if distributed.rank() == 0:
    Path(target).write_text(json.dumps({"steps": steps, "curve": curve}))
distributed.part()
