"""Binarizers that several layers share: one evaluator a step, or a copy for each layer."""

import copy

import torch
from torch import nn

from ..binarizers.classifier import Classifier
from .binary import _BinaryOperands
from .latent import latent_range


def share_evaluator(network: nn.Module) -> None:
    """From now on one evaluator a step serves all layers that share the network's learnt binarizer; evaluation needs
    none. A part of `network` that is computed twice (activation checkpointing) would find it gone: not for use
    together."""
    network.register_forward_pre_hook(_make_evaluator)
    network.register_forward_hook(_forget, always_call=True)  # one left behind would be of old weights


def _sharing(network: nn.Module) -> list[_BinaryOperands]:
    shared = network.weight_binarizer
    return [m for m in network.modules() if isinstance(m, _BinaryOperands) and m.weight_binarizer is shared]


def _forget(network: nn.Module, *_) -> None:
    for layer in _sharing(network):
        layer.evaluator = None


def _make_evaluator(network: nn.Module, inputs: tuple) -> None:
    shared, layers = network.weight_binarizer, _sharing(network)
    if layers and isinstance(shared, Classifier) and shared.tabulated and torch.is_grad_enabled():
        evaluator = shared.evaluator([latent_range(layer.weight, layer.standardize) for layer in layers])
        for layer in layers:
            layer.evaluator = evaluator


def own_binarizers(network: nn.Module) -> None:
    """Give each binary layer of `network` its own copy of the binarizers it shared; the shared ones are dropped."""
    for module in network.modules():
        for name in ("weight_binarizer", "activation_binarizer"):
            if isinstance(module, _BinaryOperands):
                shared = getattr(module, name)
                module.__dict__.pop(name, None)
                setattr(module, name, copy.deepcopy(shared))
            elif hasattr(module, name):
                setattr(module, name, None)
