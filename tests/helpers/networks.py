"""What tests of networks share."""

from torch import nn

from bnc_repro.images.networks import CLASSIFIERS

BINARY = {"weight_binarizer": "mlp", "activation_binarizer": "approx_sign"}


FLOAT = {"weight_binarizer": None, "activation_binarizer": None}


def small(**binary) -> nn.Module:
    return CLASSIFIERS["resnet20"](num_classes=3, width=4, blocks=(1, 1), stem="half", **binary)
