#!/bin/sh
# What does a GPU say, in ten minutes? One call under an image's own Python and torch; nothing is installed.
#
#     MINUTES=10 DATA=folder PYTHON=python3 sh benchmarks/on_a_gpu.sh [FOLDER]
#
# In this order, each with what is left of the time: tests marked `cuda`, what each binarizer costs, throughput, and whole
# runs of the profile `gpu`, a seed of every arm before the next seed. All lands in FOLDER ($OUT, or build/gpu): log,
# tables, rows. DATA is what the profile's runs read (docs/how-to/gpu.md); Leeds Sports Pose alone is 41 MB, and runs of
# data that is not there are left out. What was left out stands in left-out.txt, and why.

cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}
folder=${1:-${OUT:-build/gpu}}
mkdir -p "$folder" && folder=$(cd "$folder" && pwd) || exit 1
end=$(($(date +%s) + ${MINUTES:-10} * 60))
export PYTHONPATH="$PWD/src:$PWD/benchmarks" PYTHONUNBUFFERED=1
test -z "$DATA" || BNC_DATA=$(cd "$DATA" && pwd) || exit 1
test -z "$DATA" || export BNC_DATA
: >"$folder/left-out.txt"

left() { echo $((end - $(date +%s))); }
leave_out() { echo "left out: $*" | tee -a "$folder/left-out.txt"; }
has() { "$python" -c "import $1" 2>/dev/null; }

# step NAME COMMAND...: with the time that is left, its words in NAME.log; a failure is named and the next step begins.
step() {
    name=$1
    shift
    seconds=$(left)
    if [ "$seconds" -lt 20 ]; then
        leave_out "$name: the time is over"
        return 1
    fi
    echo "== $name ($seconds s left)"
    timeout --signal=INT --kill-after=20 "$seconds" "$@" >"$folder/$name.log" 2>&1
    status=$?
    tail -n 1 "$folder/$name.log"
    if [ $status -eq 124 ] || [ $status -eq 137 ]; then
        leave_out "$name: cut off at the end of the time"
    elif [ $status -ne 0 ]; then
        leave_out "$name: exit status $status, see $name.log"
    fi
    return $status
}

for package in torch torchvision numpy PIL yaml tqdm filelock; do
    has $package || { leave_out "everything: $python lacks $package"; exit 1; }
done
cuda=$("$python" -c 'import torch; print(int(torch.cuda.is_available()))')
"$python" -c 'import torch; print("torch", torch.__version__); print(torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no CUDA device")' |
    tee "$folder/device.txt"

if [ "$cuda" -eq 0 ]; then
    leave_out 'tests marked cuda, and runs of the profile gpu: no CUDA device; what follows is of the CPU'
elif has pytest; then
    step cuda-tests "$python" -m pytest -q -m cuda -p no:cacheprovider tests/layers
else
    leave_out "tests marked cuda: $python lacks pytest"
fi

# A benchmark writes its table beside itself; a table that is not of this call is left there.
touch "$folder/device.txt"
short=$(test "$cuda" -eq 1 || echo '--repeats 2 --names float ste mlp')
# shellcheck disable=SC2086
step overhead "$python" benchmarks/binarizer_overhead.py --network resnet20 ${short:---repeats 9}
for network in resnet20 sbpn; do
    step "throughput-$network" "$python" benchmarks/throughput.py --network $network --turns "$([ "$cuda" -eq 1 ] && echo 5 || echo 1)"
done
find benchmarks -name '*.md' -newer "$folder/device.txt" -exec cp {} "$folder" \;

test "$cuda" -eq 1 || exit 0
"$python" - >"$folder/runs.txt" <<'RUNS'
from bnc_repro.recipe.profiles import experiment_section, recipe_of

for turn in range(100):
    for experiment in ("coco_pose", "imagenet_resnet", "linear_vs_soft"):
        section = experiment_section(experiment, "gpu")
        for arm in section["arms"] if turn < len(section["seeds"]) else ():
            seed = section["seeds"][turn]
            if recipe_of(experiment, "gpu", arm, seed=seed).data.folder.is_dir():
                print(f"{experiment}\t{arm}\t{seed}")
            elif not turn:
                print(f"{experiment}\t{arm}\t-")
RUNS
number=0
while IFS="$(printf '\t')" read -r experiment arm seed; do
    if [ "$seed" = - ]; then
        leave_out "gpu $experiment $arm: no data in ${BNC_DATA:-DATA, which is not set}"
        continue
    fi
    [ "$(left)" -ge 20 ] || { leave_out "gpu from $experiment $arm seed $seed on: the time is over"; break; }
    number=$((number + 1))
    # A run that is cut off keeps its checkpoint in FOLDER and goes on at the next call.
    step "run-$number" "$python" -m bnc_repro run "$experiment" --profile gpu --arm "$arm" --seed "$seed" \
        --runs "$folder/runs" </dev/null
done <"$folder/runs.txt"
find "$folder/runs" -name row.json 2>/dev/null | wc -l | sed 's/$/ rows of the profile gpu/'
