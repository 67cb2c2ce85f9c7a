"""Batches in a given order, on the device."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader


def loader(dataset, order: list[int], batch_size: int, workers: int, device: torch.device) -> Iterator[dict]:
    """Batches of `dataset` in `order`, on the device. A set that is in memory is asked for them directly."""
    if getattr(dataset, "in_memory", False):
        for chosen in torch.as_tensor(order, dtype=torch.long, device=dataset.device).split(batch_size):
            if len(chosen):  # a process may have no share
                yield dataset.__getitems__(chosen)
        return
    batches = DataLoader(
        dataset,
        batch_size,
        sampler=order,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # not from the run's own stream
    )
    for batch in batches:
        yield {key: value.to(device, non_blocking=True) for key, value in batch.items()}


def _as_it_is(batch: Any) -> Any:
    return batch
