"""Make the embedded data again: python tools/embedded_data/make.py people | fashion-mnist [--target FOLDER]."""

import argparse

from fashion_mnist import DEBIAN_FOLDER, make_fashion_mnist
from people import make_people

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("what", choices=("people", "fashion-mnist"))
parser.add_argument("--target", help="where to write, data/<what> below the current folder")
parser.add_argument("--source", default=DEBIAN_FOLDER, help="the folder of the Debian package's four files")
options = parser.parse_args()
target = options.target or f"data/{options.what}"
print(make_people(target) if options.what == "people" else make_fashion_mnist(options.source, target))
