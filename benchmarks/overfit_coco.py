"""Can the network learn a few real COCO images by heart? If not, something between annotation and AP is broken.

SBPN, float and binary, is trained on the training images of a small folder in COCO's form and judged on the very same
images. FOLDER holds annotations/person_keypoints_train2017.json and train2017/, COCO's own or some images of it.

    python benchmarks/overfit_coco.py FOLDER
"""

import argparse
import tempfile
from pathlib import Path

from table import table_path

from bnc_repro.recipe.build import make_recipe, merged
from bnc_repro.run.execute import run

RECIPE = {
    "experiment": "coco_pose",
    "network": "sbpn",
    "stem": "half",
    "blocks": [2, 2, 2],
    "width": 48,
    "head": 96,
    "activation_binarizer": "approx_sign",
    "batch_size": 8,
    "learning_rate": 0.005,
    "warmup_epochs": 2,
    "evaluate_every": 20,
    "pose": {"sigma_px": 1.0, "loss": "cross_entropy", "flip_test": False},  # no flipped picture was learnt by heart
}
FLOAT = {"weight_binarizer": None, "activation_binarizer": None}
ARMS = {"mean pose": {"network": "mean_pose", **FLOAT}, "float": FLOAT, "binary": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--size", type=int, nargs=2, default=(128, 96), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--names", nargs="+", choices=ARMS, default=tuple(ARMS))
    options = parser.parse_args()
    source = options.folder.resolve()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "annotations").mkdir()
        for split in ("train", "val"):  # both are the training images
            (root / f"{split}2017").symlink_to(source / "train2017")
            target = root / "annotations" / f"person_keypoints_{split}2017.json"
            target.symlink_to(source / "annotations" / "person_keypoints_train2017.json")
        lines = ["| network | AP | AP50 | epochs | seconds | device |", "| --- | --- | --- | --- | --- | --- |"]
        for name in options.names:
            data = {"root": folder, "kind": "coco", "image_size": list(options.size)}
            own = {"epochs": options.epochs, "data": data, **ARMS[name]}
            row = run(make_recipe(**merged(RECIPE, own)), root / "runs")
            lines.append(
                f"| {name} | {row['metrics']['AP']:.3f} | {row['metrics']['AP50']:.3f} | {options.epochs} "
                f"| {row['seconds']:.0f} | {row['device']} |"
            )
    title = f"# SBPN on the training images it is judged on, {options.size[0]}x{options.size[1]} px"
    count = len(list((source / "train2017").iterdir()))
    said = f"{count} images of COCO, their true boxes, no augmentation, no flip test; one seed."
    text = "\n".join([title, "", said, "", *lines])
    print(text)
    target = table_path(__file__, row["device"])
    target.write_text(text + "\n")
    print(target)


if __name__ == "__main__":
    main()
