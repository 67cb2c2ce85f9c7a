"""OKS is pycocotools', PCK by hand."""

import math

import numpy as np
import pytest

from bnc_repro.poses.measures import oks, pck

SIGMAS = np.array(
    [
        0.026,
        0.025,
        0.025,
        0.035,
        0.035,
        0.079,
        0.079,
        0.072,
        0.072,
        0.062,
        0.062,
        0.107,
        0.107,
        0.087,
        0.087,
        0.089,
        0.089,
    ]
)


def made_people(rng, count, unlabelled=()):
    joints = rng.uniform(0, 300, (count, 17, 2))
    visible = rng.integers(0, 3, (count, 17))
    visible[:, 0] = 2
    visible[list(unlabelled)] = 0
    boxes = np.concatenate((rng.uniform(0, 100, (count, 2)), rng.uniform(20, 100, (count, 2))), 1)
    return joints, visible, rng.uniform(500, 20000, count), boxes


def test_oks_is_that_of_pycocotools():
    """All against all, people without a labelled keypoint among them: equal to computeOks to 4e-16."""
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    joints, visible, areas, boxes = made_people(rng, 6, unlabelled=(2, 5))
    found = np.concatenate((joints[:4] + rng.normal(0, 8, (4, 17, 2)), rng.uniform(-200, 400, (3, 17, 2))))
    judge = COCOeval(iouType="keypoints")
    for row in range(6):
        judge._gts[1, 1].append(
            {
                "keypoints": np.dstack((joints, visible))[row].ravel().tolist(),
                "bbox": boxes[row].tolist(),
                "area": areas[row],
            }
        )
    for row in range(7):
        flat = np.concatenate((found[row], np.ones((17, 1))), 1).ravel().tolist()
        judge._dts[1, 1].append({"keypoints": flat, "score": 1 - row / 10})
    theirs = judge.computeOks(1, 1)
    ours = oks(found[:, None], joints[None], visible[None], areas[None], SIGMAS, boxes[None])
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=4e-16)
    without_boxes = oks(found[:, None], joints[None], visible[None], areas[None], SIGMAS)
    assert np.isnan(without_boxes[:, [2, 5]]).all()
    np.testing.assert_array_equal(without_boxes[:, [0, 1, 3, 4]], ours[:, [0, 1, 3, 4]])


def test_oks_of_one_shift_by_hand():
    """One labelled joint, 10 px off: exp(-d^2 / (2 area (2 sigma)^2)); unlabelled joints do not count."""
    true = np.zeros((1, 17, 2))
    predicted = true + (6.0, 8.0)
    visible = np.zeros((1, 17))
    visible[0, 5] = 2
    expected = math.exp(-100 / (2 * 4000 * (2 * 0.079) ** 2))
    found = oks(predicted, true, visible, np.array([4000.0]), SIGMAS)
    assert found[0] == pytest.approx(expected, rel=1e-12)


def test_pck_by_hand():
    """Near is up to threshold x the person's own length; unlabelled joints are left out; nobody is nan."""
    true = np.zeros((2, 3, 2))
    predicted = np.array([[[1.9, 0], [2.1, 0], [99, 0]], [[3.9, 0], [0, 4.1], [0, 0]]])
    visible = np.array([[1, 2, 0], [2, 2, 2]])
    assert pck(predicted, true, visible, np.array([10.0, 20.0])) == 3 / 5
    assert pck(predicted, true, visible, np.array([10.0, 20.0]), threshold=0.5) == 1.0
    assert math.isnan(pck(predicted, true, visible * 0, np.array([10.0, 20.0])))
    assert pck(predicted * np.nan, true, visible, np.array([10.0, 20.0])) == 0.0


def test_pck_refuses_people_without_a_length():
    """A reference of 0 px names the person and the remedy."""
    with pytest.raises(ValueError, match=r"person 1 has a reference length .* leave such people out"):
        pck(np.zeros((2, 3, 2)), np.zeros((2, 3, 2)), np.ones((2, 3)), np.array([10.0, 0.0]))
