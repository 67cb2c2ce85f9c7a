"""What does an estimator cost? Training steps of one network under every estimator, interleaved in one run.

    python benchmarks/binarizer_overhead.py [--network bireal18|resnet20] [--repeats 15] [--names ste mlp ...]

Every round times one step (forward, loss, backward, Adam) of each contestant, in an order that turns; a ratio is
taken within a round, against clipped straight-through and against the float twin, and the table shows the median
ratio with its quartiles. Peak memory is that of a process of its own, so each contestant is measured again in one.
Both operands are binary: the named estimator on the weights, ApproxSign on the activations, as in the released
code; "on activations" is the other way round, with clipped straight-through weights. Learnt ones read their table
or polynomial, or, "exact", evaluate the classifier for each element. A run of all contestants is written to
benchmarks/binarizer_overhead.<network>.<device>.md; a run of some (--names) puts its rows in the place of theirs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import torch
from table import table_path
from torch.nn import functional as F

from bnc_repro.binarizers.registry import BINARIZERS, LEARNT, get
from bnc_repro.images.networks import CLASSIFIERS
from bnc_repro.run.device import device_name as name_of
from bnc_repro.run.device import peak_memory_mib

SETTINGS = {"bireal18": ((3, 224, 224), 8, 1000), "resnet20": ((3, 32, 32), 128, 10)}
FLOAT, REFERENCE, GROUP = "float", "ste", 6
# With these, glibc keeps the memory it has; else each step pays page faults that depend on who ran before it.
KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8000000000"}


def contestants() -> list[str]:
    """The float twin, each estimator, and each learnt one on the activations and evaluated exactly."""
    return [FLOAT, *BINARIZERS, *(f"{name} {how}" for how in ("on activations", "exact") for name in LEARNT)]


def make(name: str, network: str, device: torch.device):
    """One training step as a function."""
    size, batch, classes = SETTINGS[network]
    torch.manual_seed(0)
    if name == FLOAT:
        binary = {}
    else:
        binarizer = get(name.split()[0], **({"tabulated": False} if name.endswith("exact") else {}))
        binary = {"weight_binarizer": binarizer, "activation_binarizer": "approx_sign"}
        if name.endswith("on activations"):
            binary = {"weight_binarizer": REFERENCE, "activation_binarizer": binarizer}
    model = CLASSIFIERS[network](num_classes=classes, **binary).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x = torch.randn(batch, *size, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(classes, (batch,), device=device)

    def step() -> None:
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def peak_mib(name: str, network: str) -> float:
    """Peak memory of two steps in a process of its own (on a GPU: what torch allocated)."""
    words = [sys.executable, __file__, "--network", network, "--memory", name]
    plain = {key: value for key, value in os.environ.items() if key not in KEEP}
    return float(subprocess.run(words, capture_output=True, text=True, check=True, env=plain).stdout)


def measure_memory(name: str, network: str, device: torch.device) -> float:
    """The same within this process."""
    step = make(name, network, device)
    step()
    step()
    return peak_memory_mib(device)


def times(names: list[str], network: str, repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each step, by contestant and round."""
    steps = {name: make(name, network, device) for name in names}
    seconds = {name: [] for name in names}
    for step in steps.values():
        step()
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = time.perf_counter()
            steps[name]()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def ratios(first: list[float], second: list[float]) -> str:
    """Median and quartiles of the paired ratios."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(first, second, strict=True)], n=4)
    return f"{middle:.2f} ({low:.2f}, {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", choices=SETTINGS, default="bireal18")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--names", nargs="+", choices=contestants(), default=contestants())
    parser.add_argument("--memory", metavar="NAME", help="print the peak memory of one contestant in MiB")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.memory:
        print(measure_memory(options.memory, options.network, device))
        return
    if not KEEP.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP)
    others = [name for name in dict.fromkeys(options.names) if name not in (FLOAT, REFERENCE)]
    size, batch, _ = SETTINGS[options.network]
    device_name = name_of(device)
    lines = [
        f"# Training step of {options.network}, batch {batch}, input {'x'.join(map(str, size))}",
        "",
        f"{device_name}, torch {torch.__version__}: median of {options.repeats} paired ratios (quartiles), each taken "
        "within one run.",
        "Peak memory is the whole process's on a CPU, the allocator's on a GPU. While steps are "
        "timed, glibc keeps freed memory.",
        "",
        "| estimator | step, ms | time : ste | time : float | peak memory, MiB | memory : ste | memory : float |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    # First of all, as a process that starts another hands its own peak down to it.
    peaks = {name: peak_mib(name, options.network) for name in (FLOAT, REFERENCE, *others)}
    # A few networks at a time, as all would not fit in memory; each group is timed beside its own two references.
    for start in range(0, max(1, len(others)), GROUP):
        group = others[start : start + GROUP]
        seconds = times([FLOAT, REFERENCE, *group], options.network, options.repeats, device)
        for name in group if start else [FLOAT, REFERENCE, *group]:
            own, mib = seconds[name], peaks[name]
            ratio = f"{ratios(own, seconds[REFERENCE])} | {ratios(own, seconds[FLOAT])}"
            milliseconds = 1000 * statistics.median(own)
            memory = f"{mib:.0f} | {mib / peaks[REFERENCE]:.2f} | {mib / peaks[FLOAT]:.2f}"
            lines.append(f"| {name} | {milliseconds:.0f} | {ratio} | {memory} |")
            print(lines[-1], flush=True)
    target = table_path(__file__, device_name, options.network)
    if options.names != contestants():
        table = target.read_text().splitlines() if target.exists() else []
        if lines[:3] != table[:3]:  # of another torch, or of another number of rounds
            return
        rows = {_name(line): line for line in lines if _name(line) in others}
        lines = [rows.get(_name(line), line) for line in table]
    target.write_text("\n".join(lines) + "\n")
    print(target)


def _name(line: str) -> str:
    """The contestant of a row of the table."""
    return line.removeprefix("| ").partition(" |")[0]


if __name__ == "__main__":
    main()
