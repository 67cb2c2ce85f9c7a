"""Binarizers that several layers share: one evaluator a step, or a copy for each layer."""

import copy

import torch
from torch import nn

from ..binarizers.base import Binarizer, transformed
from ..binarizers.classifier import Classifier
from .binary import _BinaryOperands
from .latent import latent_range


def share_evaluator(network: nn.Module) -> None:
    """From now on one evaluator a step serves all layers of `network` that share a learnt weight binarizer; evaluation
    needs none. Once for a network is enough: a second call changes nothing. The evaluator is one graph for all layers:
    several losses of one forward are added up, or all backward passes but the last take retain_graph=True."""
    if _make_evaluators not in network._forward_pre_hooks.values():
        network.register_forward_pre_hook(_make_evaluators)
        network.register_forward_hook(_forget, always_call=True)  # one left behind would be of old weights
        network.register_load_state_dict_pre_hook(_spread_classifiers)


def _layers(network: nn.Module) -> list[_BinaryOperands]:
    return [module for module in network.modules() if isinstance(module, _BinaryOperands)]


def _make_evaluators(network: nn.Module, inputs: tuple) -> None:
    if not torch.is_grad_enabled() or transformed():
        return
    sharing: dict[Classifier, list[_BinaryOperands]] = {}
    for layer in _layers(network):
        binarizer = layer.weight_binarizer
        if isinstance(binarizer, Classifier) and binarizer.tabulated and binarizer.takes_gradient():
            sharing.setdefault(binarizer, []).append(layer)
    for classifier, layers in sharing.items():
        if len(layers) > 1:
            evaluator = classifier.evaluator([latent_range(layer.weight, layer.standardize) for layer in layers])
            for layer in layers:
                layer.evaluator = evaluator


def _forget(network: nn.Module, *_) -> None:
    for layer in _layers(network):
        layer.evaluator = None


def _spread_classifiers(network: nn.Module, state: dict, prefix: str, *_) -> None:
    """A state may hold a shared classifier once, at the top, as the released code and older checkpoints do: give it to
    every layer that the state has none for, unless the network has a child of that name itself. Raises ValueError where
    some layers' classifiers of an operand are there and others' are not."""
    # By operand: key of a layer's classifier -> its key at the top.
    wanted: dict[str, dict[str, str]] = {"weight_binarizer": {}, "activation_binarizer": {}}
    for path, layer in network.named_modules():
        if isinstance(layer, _BinaryOperands):
            operands: dict[str, Binarizer | None] = {
                "weight_binarizer": layer.weight_binarizer,
                "activation_binarizer": layer.activation_binarizer,
            }
            for operand, binarizer in operands.items():
                for name in () if binarizer is None else dict(binarizer.named_parameters()):
                    below = ".".join(filter(None, (path, operand, name)))
                    wanted[operand][prefix + below] = f"{prefix}{operand}.{name}"
    for operand, keys in wanted.items():
        held = sum(key in state for key in keys)
        if network._modules.get(operand) is None:
            tops = {top for top in keys.values() if top in state}
            state.update({key: state[top] for key, top in keys.items() if top in tops and key not in state})
            for top in tops:
                del state[top]
        lost = next((key for key in keys if key not in state), None)
        if held and lost:
            raise ValueError(
                f"the state holds classifiers of some layers and not of others, such as {lost}: make the same layers "
                f"binary as it has, or take the keys with {operand} out of it, so that all keep their start"
            )


def own_binarizers(network: nn.Module) -> None:
    """Give each binary layer of `network` its own copy of the binarizers it shared."""
    for layer in _layers(network):
        layer.weight_binarizer = copy.deepcopy(layer.weight_binarizer)
        layer.activation_binarizer = copy.deepcopy(layer.activation_binarizer)
