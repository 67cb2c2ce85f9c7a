"""How long does judging 6,000 people take, from heatmaps to AP, without the network?

Heatmaps of 256x192 crops (64x48 cells, 17 joints) made of the embedded people's joints, repeated under new image
numbers and moved a little: flip test's averaging, distribution-aware decoding, rescoring, OKS-NMS and COCOeval.

    python benchmarks/pose_evaluation.py
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from table import table_path

from bnc_repro.poses import coco_eval, heatmaps
from bnc_repro.poses.people import People, read_people
from bnc_repro.poses.predict import VALIDATION
from bnc_repro.poses.skeleton import COCO_PERSON
from bnc_repro.recipe.clone import project_root
from bnc_repro.run.device import device_name

SIZE, BATCH = (256, 192), 128


def repeated(people: People, count: int) -> People:
    """`count` people: the same ones again and again, each round with image and person numbers of its own."""
    rows = np.resize(np.arange(len(people)), count)
    rounds = np.arange(count) // len(people)
    made = people.take(rows)
    step = int(max(people.image_ids.max(), people.ids.max())) + 1
    return replace(made, image_ids=made.image_ids + rounds * step, ids=made.ids + rounds * step)


def annotations(people: People, file: Path) -> Path:
    """The annotation file of these people."""
    boxes, joints = people.boxes_px.tolist(), np.dstack((people.joints_px, people.visible)).reshape(len(people), -1)
    document = json.loads((project_root() / "data/people/annotations/person_keypoints_val2017.json").read_text())
    sizes = dict(zip(people.image_ids.tolist(), people.picture_sizes.tolist(), strict=True))
    document["images"] = [{"id": i, "file_name": f"{i}.jpg", "height": h, "width": w} for i, (h, w) in sizes.items()]
    document["annotations"] = [
        {
            "id": i,
            "image_id": image,
            "category_id": 1,
            "bbox": box,
            "area": area,
            "iscrowd": 0,
            "keypoints": points,
            "num_keypoints": int(np.count_nonzero(points[2::3])),
        }
        for i, image, box, area, points in zip(
            people.ids.tolist(),
            people.image_ids.tolist(),
            boxes,
            people.areas_px2.tolist(),
            joints.tolist(),
            strict=True,
        )
    ]
    file.write_text(json.dumps(document))
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--people", type=int, default=6000)
    count = parser.parse_args().people
    people = repeated(read_people(project_root() / "data/people", VALIDATION), count)
    height, width = SIZE
    draw = torch.Generator().manual_seed(0)
    seconds = dict.fromkeys(("decoding", "rescoring and OKS-NMS", "COCOeval"), 0.0)
    points, scores = [], []
    for start in range(0, count, BATCH):
        some = people.take(np.arange(start, min(start + BATCH, count)))
        corner, extent = torch.from_numpy(some.boxes_px[:, None, :2]), torch.from_numpy(some.boxes_px[:, None, 2:])
        joints = (torch.from_numpy(some.joints_px) - corner) / extent * torch.tensor([width - 1, height - 1])
        heat, _ = heatmaps.encode(joints.float(), torch.ones(joints.shape[:2]), SIZE, (height // 4, width // 4), 2.0)
        heat += 0.02 * torch.rand(heat.shape, generator=draw)
        mirrored = heat[:, COCO_PERSON.mirrored].flip(-1)
        began = time.perf_counter()
        found, certain = heatmaps.decode((heat + heatmaps.flip_back(mirrored, COCO_PERSON)) / 2, SIZE)
        points.append((found.double() / torch.tensor([width - 1, height - 1]) * extent + corner).numpy())
        scores.append(certain.numpy())
        seconds["decoding"] += time.perf_counter() - began
    began = time.perf_counter()
    results = coco_eval.to_results(people, np.concatenate(points), np.concatenate(scores))
    seconds["rescoring and OKS-NMS"] = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        file = annotations(people, Path(folder) / "annotations.json")
        began = time.perf_counter()
        measures = coco_eval.evaluate(file, results)
        seconds["COCOeval"] = time.perf_counter() - began
    device = device_name(torch.device("cpu"))
    lines = [
        f"# Judging {count:,} people from 64x48 heatmaps of 17 joints",
        "",
        f"{device}, torch {torch.__version__}. AP of what was decoded: {measures['AP']:.3f}.",
        "",
        "| part | seconds |",
        "| --- | --- |",
    ]
    lines += [f"| {name} | {value:.1f} |" for name, value in seconds.items()]
    lines += [f"| together | {sum(seconds.values()):.1f} |"]
    print("\n".join(lines))
    table_path(__file__, device).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
