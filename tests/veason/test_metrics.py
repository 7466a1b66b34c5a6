"""J, F, A and R against numbers of VISA's and DAVIS's own code (golden/metrics.npz) and against cases worked out by
hand.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from veason.metrics import vos_metrics as metrics

GOLDEN = np.load(Path(__file__).parent / "golden" / "metrics.npz")
CASES = {case["key"]: case["name"] for case in json.loads(str(GOLDEN["index_json"]))}


@pytest.mark.parametrize("key", CASES, ids=CASES.values())
def test_golden(key):
    pred, true, foreground = (GOLDEN[f"{key}_{part}"] for part in ("pred", "gt", "fg"))
    ours = {
        "J": metrics.jaccard(pred, true),
        "F": metrics.boundary_f(pred, true),
        "A": metrics.accuracy(pred, true),
        "R": metrics.robustness(pred, true, foreground),
    }
    for name, values in ours.items():
        np.testing.assert_allclose(values, GOLDEN[f"{key}_{name}"], rtol=0, atol=1e-9, err_msg=name)
    # On 0/1 masks there is nothing to correct.
    np.testing.assert_array_equal(metrics.robustness_binary(pred, true, foreground), ours["R"])
    np.testing.assert_array_equal(metrics.accuracy_binary(pred, true), ours["A"])


def plain_boundary_f(pred, true, tolerance):
    """F of one frame as its definition reads, with full-frame operations."""

    def boundary(mask):
        padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
        return (mask != padded[1:, :-1]) | (mask != padded[:-1, 1:]) | (mask != padded[1:, 1:])

    def share_near(points, others):
        distance = ndimage.distance_transform_edt(~others)
        return (distance[points] <= radius).mean()

    radius = math.ceil(tolerance * math.hypot(*pred.shape))
    a, b = boundary(pred), boundary(true)
    if not a.any() or not b.any():
        return float(a.any() == b.any())
    precision, recall = share_near(a, b), share_near(b, a)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 70), st.sampled_from([0.008, 0.03, 0.1, 0.3, 0.9]))
def test_boundary_equals_its_definition(seed, height, width, tolerance):
    """Also where the disk is larger than a strip of rows, or than the frame."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(2, height, width)), (0, *[rng.choice([0, 1, 3])] * 2))
    pred, true = noise > rng.choice([-0.1, 0, 0.1, 1])
    expected = plain_boundary_f(pred, true, tolerance)
    assert metrics.boundary_f(pred[None], true[None], tolerance)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("height", "width"), [(480, 854), (1080, 700), (257, 1921)])
def test_boundary_of_whole_frames(height, width):
    """Masks that reach the frame's sides, at the sizes of real videos."""
    noise = ndimage.gaussian_filter(np.random.default_rng(width).normal(size=(height, width)), 25, mode="wrap")
    pred, true = noise > 0, np.roll(noise, (4, 3), (0, 1)) > 0.001
    assert (
        0.1
        < metrics.boundary_f(pred[None], true[None])[0]
        == pytest.approx(plain_boundary_f(pred, true, 0.008), abs=1e-12)
    )


def test_stored_values_count_in_visas_names_only():
    true = np.zeros((1, 4, 10), np.uint8)
    true[0, :2] = 1
    foreground = np.ones_like(true)
    pred = true.copy()
    pred[0, 2] = 1  # 10 false pixels of 40
    assert metrics.robustness(pred, true, foreground)[0] == pytest.approx(0.75)
    assert metrics.robustness(pred * 255, true, foreground)[0] == 0.0  # 2550 "false pixels"
    assert metrics.robustness_binary(pred * 255, true, foreground)[0] == pytest.approx(0.75)
    assert metrics.accuracy(pred * 255, true)[0] == pytest.approx(0.25)
    assert metrics.accuracy_binary(pred * 255, true)[0] == pytest.approx(0.75)
    overlapping = true * 2  # two ground-truth masks added: 1 - 2 wraps to 255, and 255 * 1 = 255 per pixel
    assert metrics.robustness(pred, overlapping, foreground)[0] == 0.0
    assert metrics.robustness_binary(pred, overlapping, foreground)[0] == pytest.approx(0.75)
    np.testing.assert_array_equal(metrics.jaccard(pred * 255, overlapping), metrics.jaccard(pred, true))
    np.testing.assert_array_equal(metrics.boundary_f(pred * 255, overlapping), metrics.boundary_f(pred, true))


def test_bool_masks_and_no_frames():
    pred = np.random.default_rng(0).random((3, 9, 11)) > 0.5
    np.testing.assert_array_equal(metrics.jaccard(pred, pred), 1.0)
    np.testing.assert_array_equal(metrics.boundary_f(pred, pred), 1.0)
    assert metrics.jaccard(pred[:0], pred[:0]).shape == metrics.boundary_f(pred[:0], pred[:0]).shape == (0,)


def test_wrong_arguments_are_named():
    mask = np.zeros((2, 3, 4), np.uint8)
    with pytest.raises(ValueError, match=r"\(2, 3, 4\) and \(1, 3, 4\)"):
        metrics.jaccard(mask, mask[:1])
    with pytest.raises(TypeError, match="float64"):
        metrics.boundary_f(mask.astype(float), mask)
    with pytest.raises(ValueError, match="above 0 and below 1, not 8"):
        metrics.boundary_f(mask, mask, tolerance=8)
