"""People and their skeletons, drawn on their pictures: a row's examples, their heatmaps, or any results file.

Coloured limbs are predictions (orange: left, cyan: right, pink: across the body), thin white ones with dots the truth.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..images.pictures import read
from ..poses import coco_eval
from ..poses.annotations import leaves_its_folder, load_annotations
from ..poses.categories import category_of, of_category
from ..poses.skeleton import COCO_PERSON, Skeleton
from ..recipe.build import make_recipe

SPLIT = "val2017"
MARGIN_PX = 6


def limbs(ax: Axes, skeleton: Skeleton, points: np.ndarray, drawn: np.ndarray) -> None:
    """The limbs between joints that are both `drawn` (K,), at `points` (K, 2) px."""
    left, right = (set(side) for side in zip(*skeleton.flip_pairs, strict=True)) if skeleton.flip_pairs else ((), ())
    for a, b in skeleton.links:
        if drawn[a] and drawn[b]:
            colour = "tab:orange" if {a, b} <= set(left) else "tab:cyan" if {a, b} <= set(right) else "tab:pink"
            ax.plot(points[[a, b], 0], points[[a, b], 1], color="black", linewidth=4)
            ax.plot(points[[a, b], 0], points[[a, b], 1], color=colour, linewidth=2)


def people(row: dict, axes: np.ndarray) -> np.ndarray:
    """The row's example people, worst to best by OKS: the predicted skeleton with all of its joints, those too that
    nobody labelled, and the true one."""
    folder, _, skeleton, _ = _pictures(make_recipe(**row["recipe"]).data.folder, SPLIT)
    for ax, person in zip(axes.flat, row["examples"], strict=False):
        picture = _picture(ax, folder, person["image"])
        points, true, visible = (np.array(person[key]) for key in ("keypoints", "true", "visible"))
        limbs(ax, skeleton, points, np.ones(len(points), bool))
        for a, b in skeleton.links:
            if visible[a] and visible[b]:
                ax.plot(true[[a, b], 0], true[[a, b], 1], color="white", linewidth=1)
        ax.plot(*true[visible > 0].T, "o", color="white", markeredgecolor="black", markersize=5)
        _close_up(ax, person["box"], picture.size)
        ax.set_title(f"OKS {person['oks']:.2f}", fontsize=10)
    return axes


def heatmaps(row: dict, axes: np.ndarray) -> np.ndarray:
    """Where the network believes joints to be: the highest of its heatmaps over the crop it saw, people spread from
    the worst to the best."""
    folder = make_recipe(**row["recipe"]).data.folder / SPLIT
    chosen = np.linspace(0, len(row["examples"]) - 1, axes.size).round().astype(int)
    for ax, index in zip(axes.flat, chosen, strict=True):
        person = row["examples"][index]
        picture = _picture(ax, folder, person["image"])
        x, y, width, height = person["crop"]
        heat = np.array(person["heat"])
        ax.imshow(heat, extent=(x, x + width, y + height, y), cmap="inferno", alpha=0.6, interpolation="bilinear")
        _close_up(ax, person["box"], picture.size)
        ax.set_title(f"OKS {person['oks']:.2f}", fontsize=10)
    return axes


def results(file: str | Path, root: str | Path, split: str = SPLIT, count: int = 12, above: float = 0.2) -> plt.Figure:
    """The people of any results file in COCO's form, a panel a picture: `count` pictures spread over the file from low
    to high scores; joints with a score above `above`. root: a data set with annotations and `<split>/`, or a bare
    folder of pictures with COCO's names, the image's id in twelve digits (then keypoints are COCO's).

    Raises ValueError for a file or a folder that is missing, damaged or empty, and for images that do not fit.
    """
    folder, names, skeleton, listed_in = _pictures(Path(root), split)
    entries = coco_eval.read_results(file, names, listed_in, skeleton)
    if not entries:
        raise ValueError(f"results file {file} holds no person: there is nothing to draw")
    by_image: dict[int, list[dict]] = {}
    for entry in sorted(entries, key=lambda entry: entry["score"]):
        by_image.setdefault(entry["image_id"], []).append(entry)
    images = list(by_image)
    places = np.linspace(0, len(images) - 1, min(count, len(images)))
    chosen = [images[i] for i in sorted({round(place) for place in places})]
    columns = min(4, len(chosen))
    figure, axes = plt.subplots(
        math.ceil(len(chosen) / columns),
        columns,
        layout="constrained",
        squeeze=False,
        figsize=(3.2 * columns, 3.4 * math.ceil(len(chosen) / columns)),
    )
    for ax in axes.flat:
        ax.axis("off")
    for ax, image in zip(axes.flat, chosen, strict=False):
        _picture(ax, folder, names[image], f"{listed_in}: image {image}")
        for entry in by_image[image]:
            person(ax, skeleton, entry, above)
        title = f"{names[image]}: {max(entry['score'] for entry in by_image[image]):.2f}"
        ax.set_title(title + _when_nothing(by_image[image], above), fontsize=9, parse_math=False)
    return figure


def person(ax: Axes, skeleton: Skeleton, entry: dict, above: float) -> None:
    """The joints of a results entry with a score above `above`, as dots, and the limbs between them."""
    points = np.array(entry["keypoints"]).reshape(-1, 3)
    confident = points[:, 2] > above
    limbs(ax, skeleton, points[:, :2], confident)
    ax.scatter(*points[confident, :2].T, s=14, color="white", edgecolors="black", zorder=3)


def predictions(
    pictures: Sequence[Path],
    entries: Sequence[Sequence[dict]],
    skeleton: Skeleton,
    above: float = 0.2,
    boxes: Sequence[Sequence[tuple[list[float], float]]] | None = None,
) -> plt.Figure:
    """Each picture with its people (results entries) and the boxes that they were looked for in, dashed."""
    figure, axes = plt.subplots(
        1,
        len(pictures),
        layout="constrained",
        squeeze=False,
        figsize=(5 * len(pictures), 5),
        subplot_kw={"frame_on": False},
    )
    for column, (ax, picture) in enumerate(zip(axes.flat, pictures, strict=True)):
        _picture(ax, picture.parent, picture.name)
        ax.axis("off")
        for box, _ in boxes[column] if boxes else ():
            ax.add_patch(plt.Rectangle((box[0], box[1]), box[2], box[3], fill=False, linestyle="--", color="white"))
        for entry in entries[column]:
            person(ax, skeleton, entry, above)
        name = picture.name.encode(errors="surrogateescape").decode(errors="replace")  # as far as it is text
        ax.set_title(name + _when_nothing(entries[column], above), fontsize=9, parse_math=False)
    return figure


def _when_nothing(entries: Sequence[dict], above: float) -> str:
    """A word for a title where no joint is drawn."""
    if any(score > above for entry in entries for score in entry["keypoints"][2::3]):
        return ""
    return f"\nno joint with a score above {above:g}" if entries else "\nnobody"


def _pictures(root: Path, split: str) -> tuple[Path, dict[int, str], Skeleton, Path]:
    """The folder of the pictures, their names by id, the skeleton, and where that was read."""
    if not (root / "annotations").is_dir():
        pictures = [path for path in sorted(root.glob("*")) if path.suffix.lower() in IMG_EXTENSIONS]
        names: dict[int, str] = {}
        for path in [path for path in pictures if path.stem.isdecimal()]:
            number = int(path.stem)
            if number in names:
                raise ValueError(f"{root} has {names[number]} and {path.name}, both of id {number}: move one away")
            names[number] = path.name
        if not names:
            raise ValueError(
                f"{root} has neither annotations/ nor pictures named by their ids: name a data set in "
                "COCO's form, or a folder of its pictures"
            )
        return root, names, COCO_PERSON, root
    document, file = load_annotations(root, split)
    names = {image["id"]: image["file_name"] for image in document["images"]}
    return root / split, names, of_category(category_of(document, file), file), file


def _picture(ax: Axes, folder: Path, name: str, where: str = "an example") -> Image.Image:
    """Draw a picture of `folder`, whose edges stay the panel's wherever joints lie. Raises ValueError for a name that
    leads out of the folder."""
    if leaves_its_folder(name):
        raise ValueError(f"{where} is called {name}, outside of {folder}: name it within")
    picture = read(folder / name)
    ax.imshow(picture)
    ax.autoscale(False)
    return picture


def _close_up(ax: Axes, box: list[float], size: tuple[int, int]) -> None:
    x, y, width, height = box
    right, bottom = min(x + width + MARGIN_PX, size[0] - 0.5), min(y + height + MARGIN_PX, size[1] - 0.5)
    ax.set(xlim=(max(x - MARGIN_PX, -0.5), right), ylim=(bottom, max(y - MARGIN_PX, -0.5)), xticks=[], yticks=[])
