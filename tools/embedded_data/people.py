"""Pictures of articulated people in COCO's annotation form, drawn from a seed.

What: one to four figures before a textured background, among objects, the nearer covering the
farther, some cut by the border. Masks, boxes, areas and visibility flags are read off the map of
what lies on top of every point, so an annotation says what the picture shows.
Source: the annotation form is COCO's (Lin et al. 2014, arXiv:1405.0312; cocodataset.org/#format-data):
v = 0 outside the picture or of a face turned away (x = y = 0), 1 hidden, 2 seen; the area counts the
mask's pixels. The pictures are ours, see `figures`.

Every picture has a random stream of its own, named by seed, split and number: each can be drawn
without the others. The bytes hold for the pinned Pillow, whose rasterizer and JPEG encoder they are.

Coordinates in px: x right, y down; joints count from the middle of the top left pixel, boxes from its
corner, as COCO's do.
"""

import json
import math
import random
from pathlib import Path

import numpy as np
from PIL import Image

from bnc_repro.poses.skeleton import COCO_PERSON
from figures import PARTS, SCALE, Canvas, draw_figure, hsv, is_seen, new_figure, shade

FIRST_ID = {"train2017": 1, "val2017": 1_000_001}  # as in COCO, no picture's number is in both splits
SIZES_PX = ((240, 176), (176, 240), (208, 208))  # width, height
JPEG = {"quality": 30, "optimize": True}
OBJECT_ID, IDS_PER_PERSON = 255, 40  # in the map: 0 background, then 40 ids for each person
OUTLINE_PX = 0.8


def make_people(target="data/people", seed=0, train=1000, validation=250):
    """Draw `train` and `validation` pictures with their annotations under `target`; return that folder.

    Writes train2017/, val2017/ and, last, annotations/person_keypoints_{train,val}2017.json.
    ValueError: fewer than one picture in a split.
    """
    if min(train, validation) < 1:
        raise ValueError(
            f"cannot draw {train} training and {validation} validation pictures: ask for at least 1 of each"
        )
    target = Path(target)
    for split, count in (("train2017", train), ("val2017", validation)):
        (target / split).mkdir(parents=True, exist_ok=True)
        images, annotations = [], []
        for image_id in range(FIRST_ID[split], FIRST_ID[split] + count):
            picture, people = draw_picture(seed, split, image_id)
            name = f"{image_id:012d}.jpg"
            picture.save(target / split / name, **JPEG)
            images.append(
                {"id": image_id, "file_name": name, "width": picture.width, "height": picture.height, "license": 1}
            )
            annotations += [
                {"id": 10 * image_id + k, "image_id": image_id, "category_id": 1, **person}
                for k, person in enumerate(people)
            ]
        records = {
            "info": {"description": f"Drawn people, {split}, seed {seed}", "version": "1.0"},
            "licenses": [{"id": 1, "name": "MIT", "url": "https://opensource.org/license/mit"}],
            "images": images,
            "annotations": annotations,
            "categories": [person_category()],
        }
        path = target / "annotations" / f"person_keypoints_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(records, separators=(",", ":")) + "\n", encoding="utf-8")
    return target


def person_category():
    """COCO's record of the category; its `skeleton` counts the joints from 1."""
    return {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(COCO_PERSON.names),
        "skeleton": [[a + 1, b + 1] for a, b in COCO_PERSON.links],
    }


def draw_picture(seed, split, image_id):
    """One picture (RGB, of one of SIZES_PX) and its people's annotations, farthest first, without ids."""
    rng = random.Random(f"{seed}/{split}/{image_id}")
    width_px, height_px = rng.choice(SIZES_PX)
    canvas = Canvas(_background(rng, width_px, height_px))
    for _ in range(rng.randrange(4)):
        x, y = rng.uniform(0, width_px), rng.uniform(0.2, 1) * height_px
        _draw_object(rng, canvas, x, y, rng.uniform(10, 45), part=0)
    figures = _company(rng, width_px, height_px)
    for k, figure in enumerate(figures):
        if figure.seated:
            _draw_seat(rng, canvas, figure)
        draw_figure(canvas, figure, 1 + k * IDS_PER_PERSON)
        if rng.random() < 0.15:
            x, y, _ = figure.points[rng.choice(COCO_PERSON.names[5:])]
            _draw_object(rng, canvas, x, y, figure.height_px * rng.uniform(0.06, 0.16), OBJECT_ID)
    people = [_annotation(figure, canvas, 1 + k * IDS_PER_PERSON) for k, figure in enumerate(figures)]
    return canvas.colours.reduce(SCALE), [person for person in people if person]


def _annotation(figure, canvas, first_id):
    """COCO's record of a figure, or None where nothing of it shows."""
    from pycocotools import mask as coco_mask

    ids = np.asarray(canvas.ids)
    middles = ids[SCALE // 2 :: SCALE, SCALE // 2 :: SCALE]  # (H, W): what each pixel's middle shows
    mask = (middles >= first_id) & (middles < first_id + IDS_PER_PERSON)
    if not mask.any():
        return None
    joints = []
    for name in COCO_PERSON.names:
        x, y = (round(float(coordinate), 1) for coordinate in figure.points[name][:2])
        if 0 <= x <= mask.shape[1] - 1 and 0 <= y <= mask.shape[0] - 1:
            part = int(ids[int((y + 0.5) * SCALE), int((x + 0.5) * SCALE)]) - first_id
            top = PARTS[part] if 0 <= part < len(PARTS) else None
            own = top is not None
            if is_seen(figure, name, top):
                joints += [x, y, 2]
            elif own and name in COCO_PERSON.names[:5]:
                joints += [0, 0, 0]  # COCO's annotators leave a face that is turned away unlabelled
            else:
                joints += [x, y, 1]
        else:
            joints += [0, 0, 0]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    runs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "num_keypoints": sum(v > 0 for v in joints[2::3]),
        "keypoints": joints,
        "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": runs["size"], "counts": runs["counts"].decode("ascii")},
    }


def _company(rng, width_px, height_px):
    """One to four placed figures, the farthest first."""
    figures = []
    for k in range(rng.choices((1, 2, 3, 4), (25, 40, 25, 10))[0]):
        share = rng.uniform(0.95, 1.75) if rng.random() < 0.3 else rng.uniform(0.6, 0.98)
        figure = new_figure(rng, height_px * (share if k == 0 else rng.uniform(0.36, 0.85)))
        for _ in range(12):
            placed = figure.moved(*_shift(rng, figure.box, width_px, height_px))
            if all(_overlap(placed.box, other.box) < 0.3 for other in figures):
                figures.append(placed)
                break
    return sorted(figures, key=lambda figure: figure.height_px * rng.uniform(0.9, 1.1))


def _shift(rng, box, width_px, height_px):
    """A shift (x, y) that puts `box` into the picture where it fits, or lets a border cut it."""
    width, height = box[2] - box[0], box[3] - box[1]
    spare = width_px - width
    left = rng.uniform(min(spare, 0), max(spare, 0))
    fits = height < height_px
    top = height_px * rng.uniform(0.9, 1) - height if fits else height_px * rng.uniform(0, 0.08)
    place = rng.random()
    if place < 0.2:
        left = rng.choice((-rng.uniform(0.1, 0.45) * width, width_px - rng.uniform(0.55, 0.9) * width))
    elif place < 0.5:
        top = height_px - rng.uniform(0.45, 0.85) * height
    elif place < 0.75 and fits:
        top = rng.uniform(0, height_px - height)
    return left - box[0], top - box[1]


def _overlap(a, b):
    """Shared area of two boxes (x0, y0, x1, y1) over the smaller one's."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    return np.prod(sides.clip(0)) / min(np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2]))


def _pale(rng):
    # Scenery is pale and dress is not: people stand out without being cut out.
    return hsv(rng.random(), rng.uniform(0.04, 0.26), rng.uniform(0.62, 0.94))


def _background(rng, width_px, height_px):
    """Wall and ground, each with light and dark waves 18 to 90 px long; SCALE times the picture's size."""
    y, x = np.ogrid[:height_px, :width_px]
    horizon_px = rng.uniform(0.35, 0.8) * height_px
    surfaces = []
    for _ in range(2):
        light = np.zeros((height_px, width_px))
        for _ in range(rng.randrange(1, 3)):
            frequency = math.tau / rng.uniform(18, 90)
            angle = math.radians(rng.choice((0, 90, rng.uniform(0, 180))))
            phase = x * (frequency * math.cos(angle)) + y * (frequency * math.sin(angle))
            wave = np.sin(phase + rng.uniform(0, math.tau))
            light += rng.uniform(2, 6) * (wave if rng.random() < 0.6 else 2 * wave.clip(-0.3, 0.3))
        surfaces.append(np.array(_pale(rng)) + light[..., None])  # (H, W, 3)
    pixels = np.where((y < horizon_px)[..., None], *surfaces)
    picture = Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))
    return picture.resize((width_px * SCALE, height_px * SCALE), Image.Resampling.BILINEAR)


def _draw_object(rng, canvas, x, y, size_px, part):
    """A ball, a box, a pole or a bush about (x, y); poles are mistaken for limbs easily."""
    colour = hsv(rng.random(), rng.uniform(0.1, 0.55), rng.uniform(0.35, 0.9))
    kind = rng.choice(("ball", "box", "pole", "bush"))
    if kind == "ball":
        pieces = [([(x, y)], [size_px])]
    elif kind == "box":
        pieces = [_box(x, y, size_px * rng.uniform(0.6, 1.5), size_px * rng.uniform(0.6, 1.5))]
    elif kind == "pole":
        angle, reach = rng.uniform(0, math.tau), size_px * rng.uniform(1.5, 3.5)
        dx, dy = reach * math.cos(angle), reach * math.sin(angle)
        radii = [size_px * 0.3, size_px * rng.uniform(0.15, 0.3)]
        pieces = [([(x - dx, y - dy), (x + dx, y + dy)], radii)]
    else:
        pieces = [
            (
                [(x + rng.uniform(-1, 1) * size_px, y + rng.uniform(-0.7, 0.7) * size_px)],
                [size_px * rng.uniform(0.35, 0.6)],
            )
            for _ in range(7)
        ]
    _paint(canvas, pieces, colour, part)


def _draw_seat(rng, canvas, figure):
    """A block from under the hips down to the ankles."""
    x, y, _ = figure.points["pelvis"]
    top = y + 0.08 * figure.height_px
    floor = max(figure.points["left_ankle"][1], figure.points["right_ankle"][1], top)
    block = _box(x, (top + floor) / 2, 0.13 * figure.height_px, (floor - top) / 2)
    _paint(canvas, [block], shade(_pale(rng), 0.8), OBJECT_ID)


def _box(x, y, half_width, half_height):
    """Corners and their radii, for `Canvas.blob`."""
    corners = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return [(x + i * half_width, y + j * half_height) for i, j in corners], [1] * 4


def _paint(canvas, pieces, colour, part):
    for fill, grow_px in ((shade(colour, 0.55), OUTLINE_PX), (colour, 0)):
        for points, radii in pieces:
            canvas.blob(points, radii, fill, part, grow_px)
