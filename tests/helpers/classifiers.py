"""What tests of the classifier share."""

import torch

from bnc_repro.binarizers.classifier import Classifier


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def steep(hidden: int, seed: int = 0, factor: float = 3.0, **fields) -> Classifier:
    """A float64 classifier whose outputs pass 1 well inside of the data."""
    torch.manual_seed(seed)
    made = Classifier(hidden, **fields).double()
    with torch.no_grad():
        for layer in made.layers:
            layer.weight.mul_(factor)
    return made


def gradients(binarizer: Classifier, x: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
    """dL/dx, then dL/dparameter, for L = sum g * binarizer(x)."""
    x = x.clone().requires_grad_()
    return list(torch.autograd.grad((binarizer(x) * g).sum(), [x, *binarizer.parameters()]))


def data(count: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(count, generator=draw, dtype=torch.float64).view(4, -1) * 1.2
    x[0, :3] = torch.tensor([0.0, 1.0, -1.0])
    return x, torch.randn(x.shape, generator=draw, dtype=torch.float64)
