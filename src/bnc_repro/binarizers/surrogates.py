"""The literature's soft functions: what stands in for the derivative of sign, one pure function each.

One form for all. forward: sign(x), unless the entry says otherwise. gradient: dL/dx = g d(x), the
function returns d for x of any shape; a rule that looks at g too (`RULES`) returns dL/dx. schedule: progress p
runs from 0 to 1. code: where the authors' code differs. domain: what its operand must be. same: another
entry with this derivative. The decorator states the operands that the paper uses it for, W weights, A activations,
and the source, with the equation where we could check it. Scale, centring and standardisation belong to the layer.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .base import Facts
from .sign import sign

SURROGATES: dict[str, Callable[..., Tensor]] = {}  # name -> d(x, progress, **constants)
RULES: dict[str, Callable[..., Tensor]] = {}  # those among them that look at g too


def surrogate(domain: str, source: str, *, rule: bool = False) -> Callable[[Callable], Callable]:
    """Register a soft function under its own name, with its domain (W, A, or both) and source; `rule`: it sees g."""

    def register(function: Callable) -> Callable:
        function.facts = Facts(domain, source)
        SURROGATES[function.__name__] = function
        if rule:
            RULES[function.__name__] = function
        return function

    return register


@surrogate("W, A", "Bengio, Leonard, Courville 2013 (1308.3432)")
def identity(x: Tensor, progress: float = 1.0) -> Tensor:
    """The plain straight-through estimator.

    gradient: d = 1.
    """
    return torch.ones_like(x)


@surrogate("W, A", "BinaryNet (1602.02830), section 1.3")
def ste(x: Tensor, progress: float = 1.0, *, clip: float = 1.0) -> Tensor:
    """The clipped straight-through estimator, the derivative of hardtanh.

    gradient: d = 1 for abs(x) <= clip, else 0.
    """
    return (x.abs() <= clip).to(x.dtype)


@surrogate("A", "Bi-Real Net (1808.00278), section 3.3")
def approx_sign(x: Tensor, progress: float = 1.0) -> Tensor:
    """The derivative of a piecewise quadratic.

    gradient: d = 2 - 2 abs(x) for abs(x) < 1, else 0.
    domain: the authors' weights keep the clipped straight-through estimator
    """
    return x.abs().mul_(-2).add_(2).clamp_(min=0)


@surrogate("W, A", "BNN+ (1812.11800), equation 6")
def sign_swish(x: Tensor, progress: float = 1.0, *, beta: float = 5.0) -> Tensor:
    """The derivative of SignSwish; negative beyond abs(beta x) of about 2.4.

    gradient: d = beta (2 - beta x tanh(beta x / 2)) / (1 + cosh(beta x)).
    code: computed as beta (1 - t^2) (1 - beta x t / 2), t = tanh(beta x / 2), which cannot overflow
    """
    t = torch.tanh(x * (beta / 2))
    bend = torch.mul(x, t).mul_(-beta / 2).add_(1)
    return t.square_().mul_(-beta).add_(beta).mul_(bend)


@surrogate("W, A", "IR-Net (1909.10788), equations 9 and 10")
def ede(x: Tensor, progress: float = 1.0, *, start: float = 0.1, end: float = 10.0) -> Tensor:
    """EDE, the error decay estimator.

    gradient: d = k t (1 - tanh(t x)^2), k = max(1/t, 1).
    schedule: t = start (end/start)^p
    code: starts at 1e-3 for ResNet-20 and at 1e-1 for VGG-Small
    domain: the weights standardised
    """
    t = start * (end / start) ** progress
    factor = max(1 / t, 1.0) * t
    return torch.tanh(x * t).square_().mul_(-factor).add_(factor)


@surrogate("W", "mirror descent view of quantization (1910.08237), the authors' code md-bnn")
def tanh(x: Tensor, progress: float = 1.0, *, start: float = 1.0, end: float = 10.0) -> Tensor:
    """The tanh projection: a tanh that sharpens.

    gradient: d = t (1 - tanh(t x)^2).
    schedule: t = start (end/start)^p; the range is ours
    same: `ede` while t >= 1
    """
    t = start * (end / start) ** progress
    return torch.tanh(x * t).square_().mul_(-t).add_(t)


@surrogate("W", "RBNN (2009.13055)")
def rbnn(x: Tensor, progress: float = 1.0, *, start: float = 0.01, end: float = 10.0) -> Tensor:
    """RBNN's training-aware triangle.

    gradient: d = k max(0, sqrt(2) t - t^2 abs(x)), k = max(1/t, 1).
    schedule: t = start (end/start)^p
    domain: standardised; the rotation of the weights is not part of the estimator
    """
    t = start * (end / start) ** progress
    return _triangle(x, t, max(1 / t, 1.0))


@surrogate("A", "RBNN (2009.13055), the authors' code")
def rbnn_activation(x: Tensor, progress: float = 1.0, *, start: float = 0.01, end: float = 10.0) -> Tensor:
    """RBNN's triangle as its code uses it on activations.

    gradient: d = max(0, sqrt(2) t - t^2 abs(x)).
    schedule: t = max(1, start (end/start)^p)
    same: `rbnn` while t >= 1
    """
    return _triangle(x, max(start * (end / start) ** progress, 1.0), 1.0)


def _triangle(x: Tensor, t: float, k: float) -> Tensor:
    return x.abs().mul_(-k * t * t).add_(k * math.sqrt(2) * t).clamp_(min=0)


@surrogate("W, A", "FDA-BNN (2103.00841), equation 5")
def fda(
    x: Tensor, progress: float = 1.0, *, frequency: float = 0.1, first: int = 9, last: int = 18, clip: float = math.inf
) -> Tensor:
    """FDA, the truncated Fourier series of sign, without the noise module.

    gradient: d = (4 w / pi) sum_{i=0..n} cos((2i+1) w x), by its closed form sin(2(n+1) w x) / (2 sin(w x)).
    schedule: n = first + round((last - first) p)
    code: BiBench's has d = 0 beyond abs(x) = 1, here with clip=1
    """
    terms = first + round((last - first) * progress) + 1
    z = x * frequency
    below = torch.sin(z)
    small = below.abs() < 1e-6
    ratio = torch.sin(z * (2 * terms)).div_(below.masked_fill_(small, 1.0)).mul_(0.5)
    limit = torch.cos(z.mul_(2 * terms - 1)).mul_(terms)  # both ends of the ratio, by l'Hopital at 0 and at pi
    series = torch.where(small, limit, ratio).mul_(4 * frequency / math.pi)
    return series if clip == math.inf else series.mul_(x.abs() <= clip)


@surrogate("W, A", "ReSTE (2308.06689), equations 8 and 13")
def reste(x: Tensor, progress: float = 1.0, *, end: float = 3.0, clip: float = 1.5, floor: float = 0.1) -> Tensor:
    """ReSTE, the rectified power function.

    gradient: d = abs(x)^((1-o)/o) / o for floor < abs(x) <= clip, floor^(1/o) / floor below, 0 beyond.
    schedule: o = 1 + (1 - cos(pi p / 2)) (end - 1)
    same: `ste` with clip=1.5 at p = 0
    """
    o = 1 + (1 - math.cos(math.pi * progress / 2)) * (end - 1)
    size = x.abs()
    power = size.clamp(min=floor).pow_((1 - o) / o).div_(o)
    return power.masked_fill_(size <= floor, floor ** (1 / o) / floor).mul_(size <= clip)


@surrogate("W", "ReCU (2103.12369)")
def recu(x: Tensor, progress: float = 1.0, *, start: float = 0.85, end: float = 0.99) -> Tensor:
    """ReCU, the rectified clamp: weights beyond a quantile are moved in and get no gradient.

    gradient: d = 1 for abs(x) <= Q, else 0; Q = -mean abs(x) ln(2 - 2 tau), the quantile tau of a Laplacian.
    schedule: tau = start + (end - start) (e^p - 1) / (e - 1)
    same: `ste` with clip=Q
    domain: standardised; mean over the tensor
    """
    tau = start + (end - start) * math.expm1(progress) / (math.e - 1)
    size = x.abs()
    return (size <= size.mean() * -math.log(2 - 2 * tau)).to(x.dtype)


@surrogate("A", "ReCU (2103.12369)")
def recu_activation(x: Tensor, progress: float = 1.0) -> Tensor:
    """ReCU on activations: ApproxSign in units of each sample's standard deviation.

    gradient: d = max(0, 2 - 2 abs(x / sd)), sd over all but the first axis.
    code: divides by sd in training only, and the gradient passes that division too
    """
    sd = x.std(dim=tuple(range(min(1, x.dim() - 1), x.dim())), correction=0, keepdim=True)
    return (x / sd.clamp(min=1e-12)).abs_().mul_(-2).add_(2).clamp_(min=0)


@surrogate("W", "BiPer (2404.01278)")
def biper(x: Tensor, progress: float = 1.0, *, frequency: float = 20.0) -> Tensor:
    """BiPer, a periodic binarizer.

    forward: sign(sin(w x)).
    gradient: d = w cos(w x).
    domain: centred, not standardised; beyond a tenth the frequency makes the signs of large weights random
    code: a first stage of training has sin(w x) without the sign as its forward
    """
    return torch.cos(x * frequency).mul_(frequency)


@surrogate("W", "SiMaN (2102.07981), the authors' code")
def siman(x: Tensor, progress: float = 1.0) -> Tensor:
    """SiMaN: large weights against small ones, sign-to-magnitude.

    forward: +1 where abs(x) is above its median over the output channel, else -1.
    gradient: d = sign(x), the identity on abs(x).
    domain: standardised
    """
    return torch.sign(x)


@surrogate("W, A", "bitorch, ProgressiveSign")
def progressive(x: Tensor, progress: float = 1.0) -> Tensor:
    """The progressive sign: a hard tanh that steepens into sign.

    forward: hardtanh(x 4^(10 p)), sign(x) at p = 1 and outside of training; not two-valued before.
    gradient: d = 1.
    schedule: in the forward
    same: `identity` in the backward
    """
    return torch.ones_like(x)


@surrogate("A", "spikingjelly, surrogate.Sigmoid")
def sigmoid(x: Tensor, progress: float = 1.0, *, alpha: float = 4.0) -> Tensor:
    """The derivative of 2 sigmoid(alpha x) - 1, of spiking networks.
    gradient: d = 2 alpha s (1 - s), s = sigmoid(alpha x).
    same: `tanh` with t = alpha / 2
    scale: twice, for two values that are 2 apart
    """
    s = torch.sigmoid(x * alpha)
    return s.mul_(1 - s).mul_(2 * alpha)


@surrogate("A", "spikingjelly, surrogate.ATan")
def atan(x: Tensor, progress: float = 1.0, *, alpha: float = 2.0) -> Tensor:
    """The derivative of an arctangent, of spiking networks.
    gradient: d = alpha / (1 + (pi alpha x / 2)^2).
    scale: twice, for two values that are 2 apart
    """
    return (x * (math.pi * alpha / 2)).square_().add_(1).reciprocal_().mul_(alpha)


@surrogate("A", "spikingjelly, surrogate.Erf")
def erf(x: Tensor, progress: float = 1.0, *, alpha: float = 2.0) -> Tensor:
    """A Gaussian, the derivative of an error function, of spiking networks.
    gradient: d = 2 alpha / sqrt(pi) exp(-alpha^2 x^2).
    scale: twice, for two values that are 2 apart
    """
    return (x * alpha).square_().neg_().exp_().mul_(2 * alpha / math.sqrt(math.pi))


@surrogate("A", "spikingjelly, surrogate.SoftSign")
def softsign(x: Tensor, progress: float = 1.0, *, alpha: float = 2.0) -> Tensor:
    """The derivative of a softsign, of spiking networks.
    gradient: d = 1 / (alpha (1/alpha + abs(x))^2).
    scale: twice, for two values that are 2 apart
    """
    return x.abs().add_(1 / alpha).square_().reciprocal_().mul_(1 / alpha)


@surrogate("A", "spikingjelly, surrogate.PiecewiseExp")
def exponential(x: Tensor, progress: float = 1.0, *, alpha: float = 1.0) -> Tensor:
    """A Laplacian, of spiking networks.
    gradient: d = alpha exp(-alpha abs(x)).
    scale: twice, for two values that are 2 apart
    """
    return x.abs().mul_(-alpha).exp_().mul_(alpha)


@surrogate("W", "XNOR-Net (1603.05279), section 3.1", rule=True)
def scaled_ste(g: Tensor, x: Tensor, progress: float = 1.0) -> Tensor:
    """XNOR-Net's gradient through the scale as well as the sign.

    gradient: dL/dx = g 1[abs(x) <= 1] + sign(x) / (n alpha) sum(g sign(x)), alpha = mean abs(x) and sum over
    the n elements of each output channel; g already holds the layer's scale alpha.
    domain: centred, not standardised
    """
    axes = tuple(range(1, x.dim()))
    two_valued = sign(x)
    mean = x.abs().mean(dim=axes, keepdim=True).clamp(min=1e-12)
    share = (g * two_valued).mean(dim=axes, keepdim=True) / mean
    return g.mul(x.abs() <= 1).add_(two_valued.mul_(share))


@surrogate("W", "AdaSTE (CVPR 2022), the case alpha beta >= 1", rule=True)
def adaste(g: Tensor, x: Tensor, progress: float = 1.0) -> Tensor:
    """AdaSTE's limit for a steep inner problem: a weight moves only towards its other sign.

    gradient: dL/dx = g min(1/2, 1/abs(x)) where g and x share their sign, else 0.
    domain: centred, not standardised
    code: passes g whole where it, or x, is nearly 0
    scale: its outer learning of beta is left out
    """
    return torch.where(g * x <= 0, 0, g * x.abs().reciprocal_().clamp_(max=0.5))


def constants_of(name: str) -> dict[str, float]:
    """The constants of a soft function with their defaults; none for other names."""
    return (SURROGATES[name].__kwdefaults__ or {}) if name in SURROGATES else {}
