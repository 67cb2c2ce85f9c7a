"""What packed inference buys: its processor time beside everything else here that runs the same network.

Contestants take turns in one process, in an order that turns with the rounds, so that a busy machine slows all of them
alike; a ratio is taken within a round and summed up by quartiles. A turn begins with a call that does not count: what
is measured is image after image, not the cold start after another contestant. Everybody gets one thread and the same
images in memory, and time is the processor's, of all threads of the process; with several threads each it is the
clock's, and nothing else should run. The float twin is the same network with both
operands float: what one would deploy instead. int8 is quantized with scales calibrated on noise: its time, not its
accuracy.
"""

import copy
import logging
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..layers.binary import BinaryConv2d, BinaryLinear
from ..layers.ends import channels_of
from ..training.memory import refuse_above

PACKED, EAGER, CHANNELS_LAST = "packed", "torch float32", "torch float32, channels_last"
ONNXRUNTIME, ONNXRUNTIME_INT8 = "onnxruntime float32", "onnxruntime int8"
OPENVINO, OPENVINO_INT8 = "OpenVINO float32", "OpenVINO int8"
SHORTEST_TURN_S = 0.02  # a shorter call is repeated within its turn


@dataclass
class Comparison:
    """Milliseconds a call, by contestant and round: of processor time on one thread, by the clock on several. `absent`
    says who could not run and why."""

    milliseconds: dict[str, list[float]]
    absent: dict[str, str] = field(default_factory=dict)
    threads: int = 1

    def quartiles(self, name: str) -> tuple[float, float, float]:
        """Milliseconds a call: lower quartile, median and upper quartile of the rounds."""
        return _quartiles(self.milliseconds[name])

    def ratio(self, name: str) -> tuple[float, float, float]:
        """How many times the packed network's time `name` takes: quartiles and median of the rounds, in order."""
        return _quartiles(np.divide(self.milliseconds[name], self.milliseconds[PACKED]))

    def table(self) -> str:
        """A Markdown table of medians, quartiles and ratios, the absent ones named below it."""
        rows = ["| contestant | ms, median (quartiles) | times packed, median (quartiles) |", "| --- | --- | --- |"]
        for name in self.milliseconds:
            lower, median, upper = self.quartiles(name)
            low, middle, high = self.ratio(name)
            rows.append(f"| {name} | {median:.3g} ({lower:.3g}, {upper:.3g}) | {middle:.2f} ({low:.2f}, {high:.2f}) |")
        return "\n".join([*rows, *(["", "Not measured:"] if self.absent else []), *self._sentences()])

    def _sentences(self) -> list[str]:
        return [f"- {name}: {reason}." for name, reason in self.absent.items()]

    def __str__(self) -> str:
        width = max(map(len, self.milliseconds))
        lines = [f"{'':{width}}  {'ms':>8}  times packed"]
        if self.threads > 1:
            lines.insert(0, f"{self.threads} threads each, by the clock")
        for name in self.milliseconds:
            low, middle, high = self.ratio(name)
            lines.append(f"{name:{width}}  {self.quartiles(name)[1]:8.3f}  {middle:.2f} ({low:.2f} to {high:.2f})")
        return "\n".join(lines + [sentence[2:] for sentence in self._sentences()])


def _quartiles(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    lower, median, upper = np.percentile(values, [25, 50, 75])
    return float(lower), float(median), float(upper)


def float_twin(network: nn.Module) -> nn.Module:
    """A copy in evaluation whose binary layers are torch's own, with the same weights, and without hooks."""
    twin, plain = nn.Sequential(copy.deepcopy(network)).eval(), {}
    for module in list(twin.modules()):
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
        for name, child in module._modules.items():
            if isinstance(child, (BinaryConv2d, BinaryLinear)):
                if child not in plain:
                    plain[child] = _plain(child)
                module._modules[name] = plain[child]
    return twin[0].requires_grad_(False)


def _plain(layer: BinaryConv2d | BinaryLinear) -> nn.Module:
    bias = layer.bias is not None
    if isinstance(layer, BinaryLinear):
        plain = nn.Linear(layer.in_features, layer.out_features, bias)
    else:
        plain = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # pyright: ignore[reportArgumentType]
            layer.stride,  # pyright: ignore[reportArgumentType]
            layer.padding,  # pyright: ignore[reportArgumentType]
            layer.dilation,  # pyright: ignore[reportArgumentType]
            layer.groups,
            bias,
            layer.padding_mode,  # pyright: ignore[reportArgumentType]
        )
    plain.weight = layer.weight
    plain.register_parameter("bias", layer.bias)  # pyright: ignore[reportArgumentType]
    return plain.eval()


def compare(
    packed: nn.Module,
    network: nn.Module,
    input_size: tuple[int, int],
    *,
    batch: int = 1,
    rounds: int = 15,
    names: tuple[str, ...] = (),
    threads: int = 1,
) -> Comparison:
    """Time `packed` beside the float twin of `network` and what else is installed, on `batch` images of noise.

    input_size: (H, W). names: the rivals to measure, () for all; "packed" is always there. threads: of each contestant;
    a packed network shares the images of a batch out to them. Raises ValueError for an unknown name, for more threads
    than processors, and for more images than memory holds.
    """
    if not 1 <= threads <= (os.cpu_count() or 1):
        raise ValueError(f"threads must be from 1 to the {os.cpu_count()} processors of this machine, got {threads}")
    if unknown := set(names) - set(RIVALS):
        raise ValueError(f"unknown rival {sorted(unknown)[0]!r}; there are {', '.join(RIVALS)}")
    channels = channels_of(network, input_size)
    refuse_above(
        4 * batch * channels * math.prod(input_size) / 2**20,
        f"{batch} images of {input_size[0]} x {input_size[1]} px at once",
        "take a smaller batch",
        torch.device("cpu"),
    )
    images = torch.randn(batch, channels, *input_size, generator=torch.Generator().manual_seed(0))
    twin = float_twin(network)
    absent: dict[str, str] = {}
    with torch_threads(threads), torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        calls: dict[str, Callable[[], object]] = {PACKED: lambda: packed(images)}
        for name in names or RIVALS:
            missing = [package for package in NEEDS.get(name, ()) if find_spec(package) is None]
            if missing:
                absent[name] = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
                continue
            try:
                calls[name] = RIVALS[name](twin, images, Path(folder))
            except Exception as error:  # another's exporter or runtime that does not take the network is no fault of it
                absent[name] = str(error).strip().partition("\n")[0] or type(error).__name__
        clock = time.process_time if threads == 1 else time.perf_counter
        return Comparison(interleaved(calls, rounds, clock), absent, threads)


def interleaved(
    calls: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Milliseconds a call of each, by round and by `clock`; the first call of each turn does not count."""
    names, repeats = list(calls), {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, math.ceil(SHORTEST_TURN_S / max(_seconds(call, 1, clock), 1e-6)))
    milliseconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            calls[name]()
            milliseconds[name].append(1000 * _seconds(calls[name], repeats[name], clock))
    return milliseconds


def _seconds(call: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    started = clock()
    for _ in range(repeats):
        call()
    return (clock() - started) / repeats


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """torch with so many threads, which the other runtimes take too; afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _eager(twin: nn.Module, images: Tensor, folder: Path) -> Callable[[], object]:
    return lambda: twin(images)


def _channels_last(twin: nn.Module, images: Tensor, folder: Path) -> Callable[[], object]:
    other = copy.deepcopy(twin).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    laid_out = images.contiguous(memory_format=torch.channels_last)
    return lambda: other(laid_out)


def _onnx_file(twin: nn.Module, images: Tensor, folder: Path) -> Path:
    """The twin, passed through onnxruntime's basic simplifications: equal biases are one tensor behind identities
    otherwise, which keeps convolutions from being quantized."""
    file, exported = folder / "float.onnx", folder / "exported.onnx"
    if not file.exists():
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")
            # The newer exporter writes a file for residual networks that onnxruntime refuses.
            torch.onnx.export(twin, (images.clone(),), str(exported), input_names=["images"], dynamo=False)
        options = _onnxruntime_options()
        options.optimized_model_filepath = str(file)
        _session(exported, options, basic=True)
    return file


def _int8_file(twin: nn.Module, images: Tensor, folder: Path) -> Path:
    """Quantize and dequantize around every operand, unsigned activations, signed weights with a scale per channel."""
    from onnxruntime import quantization

    class Calibration(quantization.CalibrationDataReader):
        """The images, once: what scales are taken from."""

        def __init__(self) -> None:
            self.batches = iter([{"images": images.numpy()}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    file = folder / "int8.onnx"
    if not file.exists():
        root, level = logging.getLogger(), logging.getLogger().level
        root.setLevel(logging.ERROR)  # it advises at the root logger
        try:
            quantization.quantize_static(
                str(_onnx_file(twin, images, folder)),
                str(file),
                Calibration(),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
            )
        finally:
            root.setLevel(level)
    return file


def _onnxruntime_options():
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 3
    return options


def _session(file: Path, options, basic: bool = False):
    import onnxruntime

    if basic:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _in_onnxruntime(file_of: Callable[[nn.Module, Tensor, Path], Path]):
    def call(twin: nn.Module, images: Tensor, folder: Path) -> Callable[[], object]:
        session = _session(file_of(twin, images, folder), _onnxruntime_options())
        inputs = {"images": images.numpy()}
        return lambda: session.run(None, inputs)

    return call


def _in_openvino(file_of: Callable[[nn.Module, Tensor, Path], Path]):
    def call(twin: nn.Module, images: Tensor, folder: Path) -> Callable[[], object]:
        import openvino  # pyright: ignore[reportMissingImports]

        settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
        model = openvino.Core().read_model(file_of(twin, images, folder))
        request = openvino.compile_model(model, "CPU", settings).create_infer_request()
        inputs = {0: images.numpy()}
        return lambda: request.infer(inputs, share_inputs=True, share_outputs=True)

    return call


RIVALS: dict[str, Callable[[nn.Module, Tensor, Path], Callable[[], object]]] = {
    EAGER: _eager,
    CHANNELS_LAST: _channels_last,
    ONNXRUNTIME: _in_onnxruntime(_onnx_file),
    ONNXRUNTIME_INT8: _in_onnxruntime(_int8_file),
    OPENVINO: _in_openvino(_onnx_file),
    OPENVINO_INT8: _in_openvino(_int8_file),
}
NEEDS = {
    ONNXRUNTIME: ("onnx", "onnxruntime"),
    ONNXRUNTIME_INT8: ("onnx", "onnxruntime"),
    OPENVINO: ("onnx", "onnxruntime", "openvino"),
    OPENVINO_INT8: ("onnx", "onnxruntime", "openvino"),
}
