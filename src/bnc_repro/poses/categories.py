"""Which category of an annotation file a run is about, and what its keypoints are.

A category lists its `keypoints` and the `skeleton` that joins them; COCO's form has no place for more. Keys of ours
complete it: `sigmas`, which OKS divides by, `flip_pairs` and `upper`, the joints of the upper body, counted from 0.
`keypoints` may be the name of a set of `known_skeletons` instead. Limbs count from 1 as COCO's do; where a 0 stands
among them they count from 0.
"""

from collections import Counter
from pathlib import Path

from ..names import nearest_first
from .known_skeletons import KNOWN, known_skeleton
from .skeleton import Skeleton, named_pairs, without_partner


def is_person(annotation: dict) -> bool:
    """COCO's rule for training and for evaluation with true boxes: no crowd, some labelled keypoint."""
    labelled = annotation.get("num_keypoints")
    if labelled is None:
        labelled = sum(type(flag) in (int, float) and flag > 0 for flag in annotation.get("keypoints", ())[2::3])
    return labelled > 0 and not annotation.get("iscrowd", 0)


def people_by_category(document: dict) -> dict[int, int]:
    """How many people each category with keypoints has, most first, in the file's order where equal."""
    counts = Counter(entry["category_id"] for entry in document["annotations"] if is_person(entry))
    known = [category["id"] for category in document["categories"] if "keypoints" in category]
    return {number: counts[number] for number in sorted(known, key=lambda number: -counts[number])}


def category_of(document: dict, file: Path, wanted: str | int = "") -> dict:
    """The category that is `wanted`, by its name or id; "" for the one with the most people, the first of equals.

    Raises ValueError, with those that there are, for one that the file does not have or that has no keypoints, and for
    a name that several bear.
    """
    known = {category["id"]: category for category in document["categories"] if "keypoints" in category}
    if wanted == "":
        return known[next(iter(people_by_category(document)))] if len(known) > 1 else next(iter(known.values()))
    called = [category for category in known.values() if category.get("name", "") == wanted]
    if len(called) > 1:
        raise ValueError(
            f"{file} has {len(called)} categories {wanted!r} with keypoints, of the ids "
            f"{', '.join(str(category['id']) for category in called)}: take one by its id (recipe key data.category), "
            "or give each a name of its own"
        )
    chosen = known.get(wanted) if isinstance(wanted, int) else next(iter(called), None)
    if chosen is None:
        names = {f"{category.get('name', '')} ({number})": None for number, category in known.items()}
        raise ValueError(
            f"{file} has no category {wanted!r} with keypoints (recipe key data.category); known, nearest first: "
            f"{nearest_first(str(wanted), names)}"
        )
    return chosen


def differing(skeletons: dict[str, Skeleton], root: Path) -> str | None:
    """The sentence for splits (name -> skeleton of the category taken) that do not share what a run needs; None where
    they do."""
    if len(set(skeletons.values())) < 2:
        return None
    return (
        f"the categories of {' and '.join(skeletons)} in {root}/annotations differ (in id, names, sigmas, pairs, limbs "
        "or upper body): use one in both"
    )


def other_categories(document: dict, taken: dict, file: Path) -> str | None:
    """The sentence that says which of several categories was taken, and how many people the others have."""
    counts = people_by_category(document)
    if len(counts) < 2:
        return None
    names = {category["id"]: category.get("name", "") for category in document["categories"]}
    others = [f"{names[number]} ({number}): {count}" for number, count in counts.items() if number != taken["id"]]
    listed = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
    return (
        f"{file}: of {len(counts)} categories with keypoints {names[taken['id']]} ({taken['id']}) is taken, with "
        f"{counts[taken['id']]} people; people of the others: {listed}. data.category takes another"
    )


def of_category(category: dict, file: str | Path) -> Skeleton:
    """The skeleton of a category of an annotation file. The joints of known sets need nothing more; others need
    `sigmas`, and `flip_pairs` where names do not say left and right. What the category says goes before what is known.

    Raises ValueError, naming the file, for what is missing or wrong.
    """
    where = f"{file}: category {category['id']}"
    if isinstance(category["keypoints"], str):
        if category["keypoints"] not in KNOWN:
            raise ValueError(
                f"{where} has the keypoints {category['keypoints']!r}: list their names, or name a set; known, nearest "
                f"first: {nearest_first(category['keypoints'], KNOWN)}"
            )
        known = KNOWN[category["keypoints"]]
    else:
        known = known_skeleton(tuple(category["keypoints"]))
    names = known.names if known else tuple(category["keypoints"])
    if known is None and "sigmas" not in category:
        raise ValueError(
            f"{where} has {len(names)} keypoints that are not COCO's 17 and says no sigmas, which OKS needs: add "
            '"sigmas", a number for each keypoint, to the category, or name the set that they are of as its '
            f'"keypoints" ({", ".join(KNOWN)})'
        )
    try:
        return Skeleton(
            names,
            _pairs(category, names, known),
            tuple(category["sigmas"] if "sigmas" in category or known is None else known.sigmas),
            known.links if known else _links(category, len(names)),
            tuple(category["upper"]) if "upper" in category else known.upper if known else (),
            category["id"],
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _pairs(category: dict, names: tuple[str, ...], known: Skeleton | None) -> tuple[tuple[int, int], ...]:
    if "flip_pairs" in category:
        return tuple((a, b) for a, b in category["flip_pairs"])
    if known:
        return known.flip_pairs
    if alone := without_partner(names):
        raise ValueError(
            f"keypoint {alone[0]!r} has no partner on the other side: correct its name, or add "
            '"flip_pairs", the pairs that a mirror exchanges, counted from 0'
        )
    pairs = named_pairs(names)
    if not pairs:
        raise ValueError(
            'no keypoints named left and right: add "flip_pairs", the pairs that a mirror exchanges, '
            "counted from 0 ([] if there are none)"
        )
    return pairs


def _links(category: dict, count: int) -> tuple[tuple[int, int], ...]:
    links = [(a, b) for a, b in category.get("skeleton", ())]
    numbers = [joint for link in links for joint in link]
    first = 0 if 0 in numbers else 1
    if numbers and not (min(numbers) >= first and max(numbers) < count + first):
        raise ValueError(
            f'"skeleton" joins keypoint {max(numbers, key=abs)}, but there are {count}, counted from 1: correct or '
            "remove it"
        )
    return tuple((a - first, b - first) for a, b in links)
