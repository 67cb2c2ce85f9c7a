"""A jointed figure of a person: its poses, its dress, and how it is drawn limb by limb.

What: a skeleton in three dimensions takes a random pose of a random action, is turned to a random
view and painted from the farthest limb to the nearest. Beside the colours the canvas keeps a map
of which part lies on top of every point, so that what is seen is read off, not guessed.
Source: ours. Proportions are an adult's with a somewhat large head; joints bend as far as people's do.

Body frame, in body heights: x to the person's left, y up, z forward, origin between the hips.
Picture frame, in px: x right, y down, (0, 0) the middle of the top left pixel, as in COCO's keypoints.
"""

import colorsys
import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

SCALE = 3  # the canvas has 3 x 3 points for each pixel of the picture
OUTLINE_PX = 0.7
SIDES = {"left": 1, "right": -1}

# Ranges in degrees. Limbs hang down at 0; arm and leg swing forward, out and spread to the side,
# elbow and knee bend; stride swings opposite limbs opposite ways; turn rolls the upper arm outward.
ACTIONS = {
    #        share lean      stride    arm         out        turn       elbow      leg        spread   knee
    "stand": (42, (-6, 8), (0, 6), (-15, 30), (6, 30), (-50, 10), (0, 70), (-4, 6), (2, 10), (0, 8)),
    "walk": (28, (-2, 10), (15, 35), (-10, 15), (6, 16), (-20, 10), (5, 50), (0, 10), (1, 6), (5, 35)),
    "run": (8, (8, 28), (28, 52), (-5, 20), (6, 22), (-25, 0), (65, 110), (5, 25), (1, 6), (15, 90)),
    "sit": (4, (-8, 20), (0, 8), (5, 55), (5, 30), (-30, 20), (20, 90), (75, 98), (4, 18), (65, 105)),
    "crouch": (1, (15, 45), (0, 20), (15, 75), (5, 35), (-30, 20), (10, 90), (80, 115), (6, 25), (85, 130)),
    "reach": (8, (-6, 10), (0, 15), (110, 178), (-10, 25), (-30, 30), (0, 60), (-4, 12), (2, 15), (0, 20)),
    "star": (8, (-6, 6), (0, 5), (-10, 15), (60, 150), (-60, 60), (0, 70), (-5, 10), (12, 40), (0, 25)),
    "dance": (1, (-12, 25), (0, 40), (-40, 150), (5, 100), (-60, 60), (0, 120), (-15, 70), (3, 40), (0, 80)),
}
HEAD_RADIUS = 0.085  # body heights
# In radii of the head, from its middle; the face is a disc that hides behind the hair from the back.
FACE = {
    "nose": (0, -0.12, 1.02),
    "left_eye": (0.36, 0.12, 0.86),
    "right_eye": (-0.36, 0.12, 0.86),
    "left_ear": (0.98, -0.02, -0.04),
    "right_ear": (-0.98, -0.02, -0.04),
    "face": (0, -0.14, 0.30),
}

# Part -> its dress and the discs that span it: point of the skeleton, radius in body heights.
BODY = {
    "pelvis": ("trousers", ("left_hip", 0.062), ("right_hip", 0.062)),
    "torso": ("shirt", ("left_shoulder", 0.044), ("right_shoulder", 0.044), ("right_hip", 0.054), ("left_hip", 0.054)),
    "print": ("print", ("front", 0.022), ("belly", 0.022)),
    "neck": ("skin", ("neck", 0.034), ("head", 0.034)),
    "hair": ("hair", ("head", HEAD_RADIUS)),
    "face": ("skin", ("face", 0.075)),
    "nose": ("nose", ("nose", 0.015)),
}
for _side in SIDES:
    BODY |= {
        f"{_side}_{part}": (dress, *((f"{_side}_{point}", radius) for point, radius in discs))
        for part, dress, *discs in (
            ("eye", "eye", ("eye", 0.012)),
            ("ear", "ear", ("ear", 0.022)),
            ("hand", "skin", ("hand", 0.025)),
            ("forearm", "sleeve", ("elbow", 0.029), ("wrist", 0.022)),
            ("upper_arm", "shirt", ("shoulder", 0.040), ("elbow", 0.030)),
            ("shoe", "shoes", ("heel", 0.027), ("toe", 0.022)),
            ("shin", "leg", ("knee", 0.041), ("ankle", 0.028)),
            ("thigh", "trousers", ("hip", 0.060), ("knee", 0.043)),
        )
    }
PARTS = list(BODY)
TRUNK = PARTS[:3]
HEAD = [part for part in PARTS if part in ("hair", *FACE)]
FLAT = ("print", "nose", "left_eye", "right_eye")  # drawn on something, without an outline
# A joint is seen where one of its own parts is on top; clothes count as the body they cover.
SEEN_ON = {joint: (joint,) for joint in HEAD} | {
    f"{side}_{joint}": tuple(f"{side}_{part}" for part in parts)
    for side in SIDES
    for joint, parts in {
        "shoulder": ("upper_arm",),
        "elbow": ("upper_arm", "forearm"),
        "wrist": ("forearm", "hand"),
        "hip": ("thigh",),
        "knee": ("thigh", "shin"),
        "ankle": ("shin", "shoe"),
    }.items()
}
SKINS = ((246, 215, 189), (238, 191, 155), (217, 160, 120), (185, 122, 80), (141, 86, 52), (93, 58, 38))
HAIRS = ((34, 29, 28), (61, 42, 31), (107, 68, 37), (165, 112, 47), (216, 180, 92), (139, 139, 139), (156, 59, 29))


@dataclass(frozen=True)
class Figure:
    """A posed and dressed person; all lengths in px."""

    points: dict  # name -> x, y, nearness to the viewer
    box: np.ndarray  # x0, y0, x1, y1 around all points, with some air
    height_px: float  # of the body when it stands upright
    stout: float  # thickness of the limbs, 1 for a lean adult
    seated: bool  # asks for something to sit on
    dress: dict  # name -> colour

    def moved(self, x_px, y_px):
        """The same figure, shifted."""
        points = {name: point + (x_px, y_px, 0) for name, point in self.points.items()}
        return replace(self, points=points, box=self.box + (x_px, y_px, x_px, y_px))

    def near(self, *names):
        """Mean nearness of some points, in body heights."""
        return sum(self.points[name][2] for name in names) / len(names) / self.height_px


class Canvas:
    """Colours and, in step with them, the id of what lies on top; both SCALE times the picture's size."""

    def __init__(self, background):
        self.colours, self.ids = background, Image.new("L", background.size)
        self._pens = ImageDraw.Draw(self.colours), ImageDraw.Draw(self.ids)

    def blob(self, points, radii, colour, part, grow_px=0.0):
        """Discs at `points` (px), the tapered bands between neighbours, and what three or more enclose."""
        shift = (SCALE - 1) / 2  # the middle of a pixel's SCALE points
        discs = [
            (x * SCALE + shift, y * SCALE + shift, max((radius + grow_px) * SCALE, 0.8))
            for (x, y), radius in zip(points, radii)
        ]
        closed = len(discs) > 2
        shapes = [[(x, y) for x, y, _ in discs]] if closed else []
        for (x0, y0, r0), (x1, y1, r1) in zip(discs, discs[1:] + discs[:1] * closed):
            length = math.hypot(x1 - x0, y1 - y0) or 1.0
            u, v = (y0 - y1) / length, (x1 - x0) / length
            shapes.append(
                [
                    (x0 + u * r0, y0 + v * r0),
                    (x1 + u * r1, y1 + v * r1),
                    (x1 - u * r1, y1 - v * r1),
                    (x0 - u * r0, y0 - v * r0),
                ]
            )
        for pen, fill in zip(self._pens, (colour, part)):
            for shape in shapes:
                pen.polygon(shape, fill=fill)
            for x, y, r in discs:
                pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)


def hsv(hue, saturation, value):
    """A colour as Pillow takes it, three integers; arguments in 0..1."""
    return tuple(round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value))


def shade(colour, factor):
    """The colour, darker for a factor below 1."""
    return tuple(round(channel * factor) for channel in colour)


def new_figure(rng, height_px):
    """A person in a random pose, view and dress, its hips around (0, 0)."""
    action = rng.choices(list(ACTIONS), [row[0] for row in ACTIONS.values()])[0]
    yaw = rng.choices((0, 180, 90, -90), (74, 8, 9, 9))[0] + rng.uniform(-24, 24)
    lying, anyhow = rng.choice((-90, 90)) + rng.uniform(-25, 25), rng.uniform(-180, 180)
    roll = rng.choices((rng.uniform(-9, 9), lying, anyhow), (98, 1, 1))[0]
    view = np.diag((1, -1, 1)) @ _turn("z", roll) @ _turn("x", rng.uniform(-4, 16)) @ _turn("y", yaw)
    points = {name: view @ point * height_px for name, point in _skeleton(rng, action).items()}
    flat = np.array(list(points.values()))[:, :2]
    air = 0.05 * height_px

    def cloth():
        light = rng.uniform(0.2, 0.45) if rng.random() < 0.5 else rng.uniform(0.7, 0.98)
        return hsv(rng.random(), rng.uniform(0.35, 0.95), light)

    skin, shirt, trousers = rng.choice(SKINS), cloth(), cloth()
    dress = {
        "skin": skin,
        "nose": shade(skin, 0.72),
        "ear": shade(skin, 0.85),
        "eye": (30, 30, 40),
        "hair": rng.choice(HAIRS),
        "shirt": shirt,
        "sleeve": rng.choice((shirt, skin)),
        "print": cloth(),
        "trousers": trousers,
        "leg": rng.choice((trousers, trousers, skin)),
        "shoes": cloth(),
    }
    return Figure(
        points,
        np.concatenate([flat.min(0) - air, flat.max(0) + air]),
        height_px,
        stout=rng.uniform(1.15, 1.55),
        seated=action == "sit" and abs(roll) < 25,
        dress=dress,
    )


def draw_figure(canvas, figure, first_id):
    """Paint the figure; part k of PARTS gets the id `first_id` + k."""
    near, points, height_px = figure.near, figure.points, figure.height_px
    trunk = near("neck", "pelvis")
    # The print tells the chest from the back, as the face does.
    limbs = [
        (trunk, TRUNK if near("front") - near("neck") > 0.02 else TRUNK[:2]),
        (min(near("head"), trunk) - 0.01, ["neck"]),
        (near("head") + 0.02, sorted(HEAD, key=lambda part: near(BODY[part][1][0]))),
    ]
    for side in SIDES:
        # Shirts hang over trousers, arms hang beside the shirt; hence what is added to the nearness.
        for chain, middle, end, more in (
            (("hand", "forearm", "upper_arm"), "elbow", "wrist", 0.03),
            (("shoe", "shin", "thigh"), "knee", "ankle", -0.04),
        ):
            middle, end = f"{side}_{middle}", f"{side}_{end}"
            parts = [f"{side}_{part}" for part in chain]
            limbs.append((near(middle, end) + more, parts[::-1] if near(end) > near(middle) else parts))
    for _, parts in sorted(limbs, key=lambda limb: limb[0]):
        # All outlines of a limb come first, so that none crosses the joints inside it.
        outlines = [(part, OUTLINE_PX) for part in parts if part not in FLAT]
        for part, grow_px in outlines + [(part, 0) for part in parts]:
            dress, *discs = BODY[part]
            width_px = height_px * (1 if part in HEAD else figure.stout)
            colour = shade(figure.dress[dress], 0.55 if grow_px else 1)
            canvas.blob(
                [points[point][:2] for point, _ in discs],
                [radius * width_px for _, radius in discs],
                colour,
                first_id + PARTS.index(part),
                grow_px,
            )


def is_seen(figure, joint, top):
    """Whether `joint` shows; `top` is the part of this figure that lies on top there, or None."""
    if top in TRUNK and joint.endswith(("shoulder", "hip")):
        middle = figure.near("neck" if joint.endswith("shoulder") else "pelvis")
        return figure.near(joint) > middle - 0.06  # else it is on the far side of the body
    return top in SEEN_ON[joint]


def _turn(axis, degrees):
    """Rotation about an axis, right-handed, 3 x 3."""
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix, c, s = np.eye(3), math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def _skeleton(rng, action):
    """Points of a body in a random pose of `action`: name -> 3 coordinates in body heights."""
    _, lean, stride, arm, out, turn, elbow, leg, spread, knee = ACTIONS[action]
    pick = lambda degrees: rng.uniform(*degrees)
    about = lambda length: length * rng.uniform(0.93, 1.07)
    upper_arm, forearm, thigh, shin = about(0.165), about(0.15), about(0.235), about(0.235)
    shoulder, hip, trunk = about(0.105), about(0.068), about(0.28)
    lean, stride = pick(lean), pick(stride) * rng.choice((1, -1))
    spine = _turn("x", lean) @ _turn("z", rng.uniform(-7, 7))
    chest = spine @ _turn("y", rng.uniform(-16, 16) + 0.25 * stride)
    head = chest @ _turn("y", rng.uniform(-32, 32)) @ _turn("x", rng.uniform(-14, 18) - 0.5 * lean)
    points = {"pelvis": np.zeros(3), "neck": spine @ (0, trunk, 0)}
    points["head"] = points["neck"] + chest @ (0, 0.055, 0.01) + head @ (0, 0.07, 0.012)
    points |= {name: points["head"] + head @ np.array(place) * HEAD_RADIUS for name, place in FACE.items()}
    points |= {"front": points["neck"] + chest @ (0, -0.05, 0.05), "belly": chest @ (0, 0.05, 0.05)}
    for side, sign in SIDES.items():
        swing = _turn("x", sign * stride - pick(arm))
        upper = chest @ swing @ _turn("z", sign * pick(out)) @ _turn("y", sign * pick(turn))
        lower = upper @ _turn("x", -pick(elbow))
        points[f"{side}_shoulder"] = points["neck"] + chest @ (sign * shoulder, -0.018, 0)
        points[f"{side}_elbow"] = points[f"{side}_shoulder"] + upper @ (0, -upper_arm, 0)
        points[f"{side}_wrist"] = points[f"{side}_elbow"] + lower @ (0, -forearm, 0)
        points[f"{side}_hand"] = points[f"{side}_wrist"] + lower @ (0, -0.03, 0)
        upper = _turn("x", -sign * stride - pick(leg)) @ _turn("z", sign * pick(spread))
        lower = upper @ _turn("x", pick(knee))
        points[f"{side}_hip"] = np.array((sign * hip, 0, 0))
        points[f"{side}_knee"] = points[f"{side}_hip"] + upper @ (0, -thigh, 0)
        points[f"{side}_ankle"] = points[f"{side}_knee"] + lower @ (0, -shin, 0)
        points[f"{side}_heel"] = points[f"{side}_ankle"] + lower @ (0, -0.022, -0.012)
        points[f"{side}_toe"] = points[f"{side}_ankle"] + lower @ (0, -0.032, 0.085)
    return points
