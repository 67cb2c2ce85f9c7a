"""The processes of one run: who they are, sums over them, and what one of them does for all.

`torchrun` starts them and tells each its place through the environment. Without it there is one process, and
nothing here communicates. Every process calls every function of this module in the same order, or all wait.
"""

import datetime
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")
PATIENCE = datetime.timedelta(hours=6)  # the others wait while the first one prepares a teacher


def rank() -> int:
    """This process's number, from 0."""
    if distributed.is_initialized():
        return distributed.get_rank()
    own = _number("RANK", 0)
    if own >= size():
        raise ValueError(
            f"RANK is {own} and WORLD_SIZE {size()}: start several processes by torchrun, or unset RANK, which another "
            "program left"
        )
    return own


def size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else max(1, _number("WORLD_SIZE", 1))


def _number(variable: str, default: int) -> int:
    """The whole number in an environment variable. Raises ValueError for anything else."""
    text = os.environ.get(variable, str(default))
    if not text.isascii() or not text.isdecimal():
        raise ValueError(f"the environment variable {variable} is {text!r}, no whole number: unset it")
    return int(text)


def on_this_machine() -> int:
    """This process's number among those of its machine: the GPU it takes."""
    return _number("LOCAL_RANK", 0)


def meet(device: torch.device) -> None:
    """Join the other processes, once; on CUDA by NCCL, else by gloo."""
    if size() > 1 and not distributed.is_initialized():
        if device.type == "cuda":
            distributed.init_process_group("nccl", timeout=PATIENCE, device_id=device)
        else:
            distributed.init_process_group("gloo", timeout=PATIENCE)


def part() -> None:
    """Leave the others, once nothing is left to say: a process that ends while it still listens may abort."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def sum_(values: Tensor) -> Tensor:
    """`values`, replaced by their sum over all processes."""
    if size() > 1:
        distributed.all_reduce(values)
    return values


def gathered(items: list) -> list:
    """The items of every process, in the order of the processes."""
    if size() == 1:
        return items
    parts: list = [None] * size()
    distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def by_the_first(make: Callable[[], T]) -> T:
    """What `make` returns in the first process, for all of them. Its error is raised in each."""
    if size() == 1:
        return make()
    outcome: list = [None, None]
    if rank() == 0:
        try:
            outcome[0] = make()
        except Exception as error:
            outcome[1] = error
    distributed.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def share(count: int) -> list[int]:
    """The indices 0..count-1 that this process evaluates: each index belongs to one process."""
    return list(range(rank(), count, size()))


def sync_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Let batch statistics be those of all processes; without this each has its own, and the first one's running
    statistics count. Raises ValueError on a CPU."""
    if device.type != "cuda":
        raise ValueError("recipe key sync_batch_norm needs CUDA: torch has no such layer on a CPU; leave it out")
    nn.SyncBatchNorm.convert_sync_batchnorm(network)


def parallel(network: nn.Module, device: torch.device) -> nn.Module:
    """`network`, or a wrapper of it whose gradients are means over all processes."""
    if size() == 1:
        return network
    return DistributedDataParallel(network, device_ids=[device.index] if device.type == "cuda" else None)


@contextmanager
def summed_later(network: nn.Module, later: bool) -> Iterator[None]:
    """Within the block gradients add up in each process alone, if `later` says so."""
    if later and isinstance(network, DistributedDataParallel):
        with network.no_sync():
            yield
    else:
        yield


def agree(network: nn.Module) -> None:
    """Give every process the first one's running statistics."""
    if size() > 1:
        for buffer in network.buffers():
            distributed.broadcast(buffer, 0)
