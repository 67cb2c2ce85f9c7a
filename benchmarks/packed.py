"""What does packing buy? One image through the packed network, its float twin, and what else runs it here.

Contestants take turns, a ratio is taken within a round: processor time, one thread, medians with quartiles.

    python benchmarks/packed.py                            # every network
    python benchmarks/packed.py --network bireal18 [--rounds 25] [--batch 8] [--kernel popcount]

The networks are as initialised: time does not depend on the weights. Rows go to results/packed.csv, and from there
by `make publish` to README and the docs. Who is not installed is named: onnxruntime is in
the extra `export`, OpenVINO in none (`pip install openvino`).
"""

import argparse

from bnc_repro.evidence import speed
from bnc_repro.packed.benchmark import RIVALS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", choices=speed.NETWORKS, nargs="+", default=list(speed.NETWORKS))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--kernel", help="popcount or tables; the packed network's own choice if left out")
    parser.add_argument("--rivals", nargs="+", choices=RIVALS, default=[])
    options = parser.parse_args()
    for name in options.network:
        measured = speed.compared(
            name, rounds=options.rounds, batch=options.batch, kernel=options.kernel, rivals=tuple(options.rivals)
        )
        print(f"# {name}, batch {options.batch}\n\n{measured.comparison.table()}\n\n{measured.packed.report}\n")
        speed.keep(measured.rows())


if __name__ == "__main__":
    main()
