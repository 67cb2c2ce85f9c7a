"""Trains recipes in float64, with batch statistics frozen and the classifier evaluated exactly; the first process
writes the losses of all steps and the curve of each.

    python train_exactly.py RECIPES_AS_JSON TARGET
"""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from bnc_repro.images import task as images
from bnc_repro.recipe import make_recipe
from bnc_repro.training import distributed, loop

device, (recipes, target) = torch.device("cpu"), sys.argv[1:]
distributed.meet(device)
steps, look = [], loop.stop_if_diverged


def noted(losses, *others):
    """Keep each step's loss before it is looked at."""
    steps.append(losses[-1].item())
    look(losses, *others)


loop.stop_if_diverged = noted
trained = []
for number, values in enumerate(json.loads(recipes)):
    recipe = make_recipe(**values)
    task = images.build(recipe, device)
    task.network.double()
    task.network.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
    task.network.weight_binarizer.tabulated = False
    for module in task.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.train = lambda mode=True, module=module: module
    steps.clear()
    curve = loop.train(task, recipe, Path(f"{target}.{number}"), device)
    trained.append({"steps": list(steps), "curve": curve})
loop.stop_if_diverged = look
if distributed.rank() == 0:
    Path(target).write_text(json.dumps(trained))
distributed.part()
