#!/bin/sh
# Makes .venv from the lock file; `make install` calls it, and so does every target that needs it.
#
#     PYTHON   the Python to build on (default python3; 3.11 or newer)
#     TORCH    lock: torch and torchvision of the lock; own: the pair that PYTHON already has
#
# What is not said stays as it was at the last install. The stamp .venv/.installed remembers both and is
# written last; .venv/.installing marks an install that has begun, and one that was interrupted starts afresh.
set -eu
cd "$(dirname "$0")/.."
oldest=3.11
py=.venv/bin/python
read -r was_torch was_python 2>/dev/null <.venv/.installed || was_torch= was_python=
TORCH=${TORCH:-${was_torch:-lock}} PYTHON=${PYTHON:-${was_python:-python3}}

stop() { printf '%s\n' "$*" >&2; exit 1; }

case $TORCH in lock | own) ;; *) stop "TORCH=$TORCH is not known: say TORCH=lock (the default) or TORCH=own." ;; esac
minor='import sys; print("%d.%d" % sys.version_info[:2])'
version=$("$PYTHON" -c "$minor" 2>/dev/null) ||
    stop "$PYTHON does not run: install Python $oldest or newer, or name one, as in PYTHON=python3.12 make install."
case $version in
2.* | 3.[0-9] | 3.10) stop "$PYTHON is Python $version, and this needs $oldest or newer: name one, as in PYTHON=python3.12 make install." ;;
esac

# Every step shows how far it is; a warm cache takes seconds, the first download of torch minutes.
step() { printf '[install %s] %s\n' "$1" "$2"; }

step 1/4 "Python $version in .venv"
if [ -e .venv/.installing ] || [ "${was_torch:-$TORCH}" != "$TORCH" ] ||
    [ "$($py -c "$minor" 2>/dev/null)" != "$version" ] || ! $py -m pip --version >/dev/null 2>&1; then
    base=$("$PYTHON" -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))') # .venv may be active
    "$base" -m venv --clear .venv ||
        stop "$base cannot make a virtual environment: install its venv module (on Debian and Ubuntu: python3-venv)."
fi
rm -f .venv/.installed
: >.venv/.installing

step 2/4 "uv, the installer"
$py -m pip install --quiet --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/uv.txt

# uv reads neither pip's settings nor, unless told to, the system's certificates.
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}" UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-180}"
if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then
    index=${PIP_INDEX_URL:-$($py -m pip config get global.index-url 2>/dev/null || true)}
    [ -z "$index" ] || export UV_DEFAULT_INDEX="$index"
fi

lock=requirements/lock.txt
if [ "$TORCH" = own ]; then
    lock=.venv/lock-without-torch.txt
    $py requirements/pins.py without-torch >$lock
    "$PYTHON" - >.venv/own-torch.pth <<'END' || exit 1
import pathlib, sys
try:
    import torch, torchvision
except Exception as problem:
    sys.exit(f"TORCH=own uses the torch and torchvision of {sys.executable}, which do not import there: {problem}")
if tuple(int(n) for n in torch.__version__.split(".")[:2]) < (2, 11):
    sys.exit(f"TORCH=own found torch {torch.__version__}; this needs 2.11 or newer.")
print(*sorted({str(pathlib.Path(m.__file__).resolve().parent.parent) for m in (torch, torchvision)}), sep="\n")
END
    # Python appends the folders in a .pth to its path, after the locked packages.
    mv .venv/own-torch.pth "$($py -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
fi
step 3/4 "$(grep -c '==' $lock) pinned packages at most$([ "$TORCH" = own ] || echo '; the first time 3 GB are downloaded')"
{
    .venv/bin/uv pip sync --python $py --require-hashes --build-constraints requirements/lock.txt $lock 2>&1 ||
        echo failed >.venv/.installing
} | sed '/^ [-+~] /d' # one line for a large download and for each phase, none for each package
[ ! -s .venv/.installing ] || stop "The packages could not be installed (see above); run the same command again to go on."

step 4/4 "bnc_repro itself, editable"
.venv/bin/uv pip install --quiet --python $py --offline --no-deps --no-build-isolation --editable .
$py -c 'import torch, torchvision, bnc_repro' || stop "The installed packages do not import (see above)."

rm -f .venv/.installing
echo "$TORCH $PYTHON" >.venv/.installed
