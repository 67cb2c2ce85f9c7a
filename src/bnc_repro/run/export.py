"""ONNX files of trained networks: standard operators, no backward, and a byte for each binary weight.

A binary weight stands in the file as int8 -1 or +1 and one float scale per output channel, behind Cast and Mul: a
runtime folds them once when it loads the file. torch's TorchScript exporter writes the graph. The newer one (of
torch.export, with onnxscript) writes BHRNet's nodes in no valid order, so that checkers and runtimes refuse the file.
"""

import copy
import logging
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.weight_norm import WeightNorm

from ..layers.binary import BinaryConv2d, BinaryLinear
from ..layers.ends import channels_of
from ..layers.inspect import evaluating
from ..names import install_line
from ..training.checkpoint import atomic
from .outputs import ONNX_MARK
from .packed import load_unpacked

OPSET = 17
SUFFIX = ".onnx"
PRODUCTS = ("Conv", "Gemm", "MatMul")
CLOSE = 1e-4  # of the largest output


@dataclass(frozen=True)
class Exported:
    """What an ONNX file holds: its bytes, those of the same file with float weights, how many weights are a byte each,
    the largest difference of onnxruntime's outputs to torch's as a share of the largest one, on how many of the images
    it is above rounding."""

    size_bytes: int
    float_bytes: int
    binary_weights: int
    difference: float
    apart: int
    images: int

    def __str__(self) -> str:
        shrunk = f"{self.float_bytes / 1e6:.2f} MB with float weights -> {self.size_bytes / 1e6:.2f} MB"
        text = (
            f"{self.binary_weights} binary weights, a byte each: {shrunk}, "
            f"{self.float_bytes / self.size_bytes:.2f} times smaller\n"
            f"onnxruntime against torch on {self.images} random images: largest difference {self.difference:.1e} of "
            "the largest output"
        )
        if not self.apart:
            return text
        return f"{text}; {self.apart} of them above {CLOSE:g}, as where a sign within rounding of 0 turns over"


def export_checkpoint(path: Path, file: Path, own: Collection[str] = ()) -> Exported:
    """Write the network of a checkpoint to `file`, as `to_onnx` does; `own` as in `judge.load_network`."""
    network, recipe, *_ = load_unpacked(path, own)
    size = recipe.data.image_size
    return to_onnx(network, (channels_of(network, size), *size), file)


def to_onnx(network: nn.Module, input_size: tuple[int, int, int], file: str | Path) -> Exported:
    """Write `network` in evaluation, on the CPU, for images (N, C, H, W) of `input_size` (C, H, W) and any N, and run
    the file in onnxruntime. Input `images`, output `outputs`. Raises ValueError where onnx or onnxruntime is missing
    and for a file that does not end in .onnx."""
    missing = [package for package in ("onnx", "onnxruntime") if find_spec(package) is None]
    if missing:
        raise ValueError(f"an export needs {' and '.join(missing)}: {install_line(*missing)}")
    if Path(file).suffix != SUFFIX:
        raise ValueError(f"{file} must end in .onnx, which tells programs what it is")
    import onnx

    images = torch.randn(8, *input_size, generator=torch.Generator().manual_seed(0))
    with evaluating(network):
        expected = network(images)
        fixed = with_fixed_weights(network)
    with atomic(Path(file)) as temporary:
        with evaluating(fixed), warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")  # of the exporter's own age, and of Python's numbers in a trace
            torch.onnx.export(
                fixed,
                (images,),
                str(temporary),
                input_names=["images"],
                output_names=["outputs"],
                dynamic_axes={"images": {0: "batch"}, "outputs": {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
        float_bytes = temporary.stat().st_size
        model = onnx.load(str(temporary))
        model.producer_name = ONNX_MARK
        binary_weights = store_bytes(model)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(temporary))
        outputs = _run(temporary, images.numpy())
    differences = (torch.from_numpy(outputs) - expected).abs().flatten(1).amax(1) / expected.abs().amax()
    apart = int((differences > CLOSE).sum())
    size_bytes = Path(file).stat().st_size
    return Exported(size_bytes, float_bytes, binary_weights, differences.max().item(), apart, len(images))


def with_fixed_weights(network: nn.Module) -> nn.Module:
    """A copy of `network` whose binary weights are plain weights of two values per output channel."""
    fixed = copy.deepcopy(network)
    for layer in list(fixed.modules()):
        if isinstance(layer, (BinaryConv2d, BinaryLinear)) and layer.weight_binarizer is not None:
            weight = layer.binary_weight().detach().clone()
            if parametrize.is_parametrized(layer, "weight"):
                parametrize.remove_parametrizations(layer, "weight")
            for key, hook in list(layer._forward_pre_hooks.items()):
                if isinstance(hook, WeightNorm):
                    hook.remove(layer)
                    del layer._forward_pre_hooks[key]
            layer.weight = nn.Parameter(weight)
            layer.weight_binarizer = None
    return fixed


def store_bytes(model: Any) -> int:
    """Replace each float weight of `model` (an ONNX model) that is -a or +a within each output channel by int8 signs
    and the scales a; the number of such weights is returned."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    outputs_last = {node.input[1] for node in graph.node if node.op_type == "MatMul"}
    flat = {node.input[1] for node in graph.node if node.op_type == "Gemm" and not _transposed(node)}
    weights = [node.input[1] for node in graph.node if node.op_type in PRODUCTS and node.input[1] in constants]
    count, before = 0, []
    for name in dict.fromkeys(weights):
        values = numpy_helper.to_array(constants[name])
        axis = values.ndim - 1 if name in outputs_last | flat else 0
        size = np.abs(values)
        scale = size.max(axis=tuple(i for i in range(values.ndim) if i != axis), keepdims=True)
        if values.dtype != np.float32 or values[0].size == 1 or not (size == scale).all():
            continue
        signs = np.where(values < 0, -1, 1).astype(np.int8)
        graph.initializer.remove(constants[name])
        graph.initializer.extend(
            [numpy_helper.from_array(signs, f"{name}.signs"), numpy_helper.from_array(scale, f"{name}.scale")]
        )
        before += [
            helper.make_node("Cast", [f"{name}.signs"], [f"{name}.float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}.float", f"{name}.scale"], [name]),
        ]
        count += values.size
    nodes = [*before, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return count


def _transposed(node: Any) -> bool:
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)


def _run(file: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"images": images})[0])


class _quiet:
    """Without the exporter's log below errors."""

    def __enter__(self) -> None:
        self.logger = logging.getLogger("torch.onnx")
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *_) -> None:
        self.logger.setLevel(self.level)
