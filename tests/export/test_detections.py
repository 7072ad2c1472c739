"""Comparison of detections."""

import torch

from hybrid_mm.export.detections import same_detections


def objects(*rows):
    """Rows of left, score, label."""
    left = torch.tensor([[row[0] for row in rows]])
    boxes = torch.stack([left, left * 0, left + 10, left * 0 + 20], -1)
    scores = torch.tensor([[row[1] for row in rows]])
    return dict(boxes=boxes, scores=scores, labels=torch.tensor([[row[2] for row in rows]]))


def test_order_and_empty_rows_do_not_matter():
    a = objects((0.0, 0.9, 1), (30.0, 0.8, 1), (30.0, 0.7, 2), (0.0, 0.0, -1))
    b = objects((30.0, 0.7, 2), (0.0, 0.9, 1), (30.0, 0.8, 1))
    assert same_detections(a, b, 100) == 0
    assert same_detections(b, a, 100) == 0


def test_differences_of_boxes_scores_and_labels():
    a = objects((0.0, 0.9, 1), (30.0, 0.8, 1))
    assert abs(same_detections(a, objects((0.05, 0.9, 1), (30.0, 0.8, 1)), 100) - 5e-4) < 1e-6
    assert abs(same_detections(a, objects((0.0, 0.7, 1), (30.0, 0.8, 1)), 100) - 0.2) < 1e-6
    for other in (objects((0.0, 0.9, 1)), objects((0.0, 0.9, 1), (30.0, 0.8, 2)),
                  objects((0.0, 0.9, 1), (50.0, 0.8, 1))):  # fmt: skip
        assert abs(same_detections(a, other, 100) - 0.8) < 1e-6
        assert abs(same_detections(other, a, 100) - 0.8) < 1e-6
    assert same_detections(a, objects(), 100) > 0.89


def test_what_rounding_decides_is_left_out():
    a = objects((0.0, 0.9, 1), (30.0, 0.8, 1), (60.0, 0.3001, 1))
    b = objects((0.0, 0.9, 1), (30.0, 0.8, 1))
    assert same_detections(a, b, 100, score_threshold=0.3) == 0
    assert same_detections(a, b, 100, score_threshold=0.2) > 0.3
    c = objects((0.0, 0.9, 1), (30.0, 0.8, 1), (90.0, 0.3002, 1))
    assert same_detections(a, c, 100, most=3) == 0
    assert same_detections(a, c, 100, most=4) > 0.3


def test_masks_tell_equal_boxes_apart():
    a = objects((0.0, 0.9, 1), (0.0, 0.9, 1))
    first, second = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    a['masks'] = torch.cat([first, second], 1)
    b = dict(a, masks=torch.cat([second, first], 1))
    assert same_detections(a, b, 100) == 0
    assert same_detections(a, dict(a, masks=a['masks'] + 0.25), 100) == 0.25
