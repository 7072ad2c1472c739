"""Summaries of evaluations under corruption, and the accuracy among some classes."""

import math

import pytest
import torch
from mmengine.registry import METRICS

import hybrid_mm.registry  # noqa: F401
from hybrid_mm.data.corruptions import BENCHMARK, CORRUPTIONS
from hybrid_mm.evaluation.robustness import (
    ALEXNET_ERROR,
    corruption_errors,
    mce,
    performance_under_corruption,
)


def test_alexnet_has_100():
    errors = {name: [error] * 5 for name, error in ALEXNET_ERROR.items()}
    assert mce(errors) == {'mCE(15)': pytest.approx(100), 'mCE(19)': pytest.approx(100)}
    assert list(ALEXNET_ERROR) == list(CORRUPTIONS)


def test_mce_needs_all_corruptions():
    errors = {name: [10.0 * s for s in range(1, 6)] for name in BENCHMARK}
    expected = 100 * sum(30 / ALEXNET_ERROR[name] for name in BENCHMARK) / 15
    assert mce(errors) == {'mCE(15)': pytest.approx(expected)}
    del errors['frost']
    assert mce(errors) == {}


@pytest.mark.parametrize('values', [[1.0] * 4, [1, 2, 3, 4, 101], [1, 2, 3, 4, math.nan]])
def test_wrong_errors(values):
    with pytest.raises(ValueError, match='fog: expected five top-1 errors'):
        mce({'fog': values})
    with pytest.raises(ValueError, match="no corruption 'smog'"):
        mce({'smog': values})


def test_errors_at_their_ends():
    """CE = mean error / AlexNet's: 0 and 100 per cent are errors like others."""
    found = corruption_errors(
        {
            'fog': [0, 0, 0, 0, 0],
            'snow': [100] * 5,
            'elastic_transform': [0.0, 25.0, 50.0, 75.0, 100.0],
        }
    )
    assert found == dict(
        fog=0.0, snow=pytest.approx(100 / 86.7), elastic_transform=pytest.approx(50 / 64.6)
    )
    for bad in (-0.001, 100.001, math.inf):
        with pytest.raises(ValueError, match='snow: expected five'):
            corruption_errors({'snow': [bad, 1, 1, 1, 1]})


def test_mce_by_hand():
    """15 corruptions of the benchmark and 4 more, all of them with their own errors."""
    alexnet = [
        88.6,
        89.4,
        92.3,
        82.0,
        82.6,
        78.6,
        79.8,
        86.7,
        82.7,
        81.9,
        56.5,
        85.3,
        64.6,
        71.8,
        60.7,
        84.5,
        78.7,
        71.8,
        65.8,
    ]
    errors = {name: [i, i + 1, i + 2, i + 3, 3 * i + 4] for i, name in enumerate(CORRUPTIONS)}
    ratios = [(7 * i + 10) / 5 / alexnet[i] for i in range(19)]
    assert mce(errors) == {
        'mCE(15)': pytest.approx(100 * sum(ratios[:15]) / 15),
        'mCE(19)': pytest.approx(100 * sum(ratios) / 19),
    }
    errors.pop('saturate')
    assert mce(errors) == {'mCE(15)': pytest.approx(100 * sum(ratios[:15]) / 15)}


def test_mpc_and_rpc():
    found = performance_under_corruption(0.4, {'fog': [0.3, 0.1], 'snow': [0.2, 0.0]})
    assert found == dict(clean=0.4, mPC=pytest.approx(0.15), rPC=pytest.approx(37.5))
    assert performance_under_corruption(0.4, {'fog': [0.3, None]})['mPC'] is None
    assert performance_under_corruption(0.0, {'fog': [0.0]})['rPC'] is None
    assert performance_under_corruption(0.4, {})['mPC'] is None
    # corruptions of several severities: every evaluation counts the same
    found = performance_under_corruption(50.0, {'fog': [10.0], 'snow': [40.0, 20.0, 26.0]})
    assert found == dict(clean=50.0, mPC=24.0, rPC=48.0)
    assert performance_under_corruption(None, {'fog': [0.3]}) == dict(clean=None, mPC=0.3, rPC=None)
    assert performance_under_corruption(0.4, {'fog': [math.nan]})['rPC'] is None


def sample(label, *scores):
    return dict(gt_label=torch.tensor([label]), pred_score=torch.tensor(scores))


def evaluate(metric, samples, **meta):
    metric.dataset_meta = meta
    metric.process(None, samples)
    return metric.evaluate(len(samples))['accuracy/top1']


def test_accuracy_among_some_classes():
    samples = [sample(1, 0.1, 0.3, 0.6), sample(0, 0.2, 0.1, 0.7), sample(1, 0.4, 0.3, 0.3)]

    def metric(**kwargs):
        return METRICS.build(dict(type='hybrid_mm.SubsetAccuracy', **kwargs))

    assert evaluate(metric(), samples, valid_labels=(0, 1)) == pytest.approx(200 / 3)
    assert evaluate(metric(valid_labels=(0, 1)), samples) == pytest.approx(200 / 3)
    assert evaluate(metric(), samples) == 0
    with pytest.raises(ValueError, match='label 1 and valid_labels up to 2 do not fit'):
        evaluate(metric(valid_labels=(0, 2)), samples)
    with pytest.raises(ValueError, match='the 3 classes of the model'):
        evaluate(metric(valid_labels=(0, 1, 3)), samples)


def test_classes_of_a_subset_by_hand():
    """Classes 2, 5 and 7 of eight; the best of all is elsewhere."""
    scores = [
        [9, 0, 0.5, 0, 8, 0.4, 0, 0.3],  # 2
        [0, 9, 0.1, 0, 8, 0.4, 9, 0.3],  # 5
        [0, 9, 0.1, 7, 8, 0.4, 9, 0.6],  # 7
        [9, 9, 0.3, 9, 9, 0.2, 9, 0.1],  # 2
    ]

    def score(labels, own=None, **meta):
        metric = METRICS.build(dict(type='hybrid_mm.SubsetAccuracy', valid_labels=own))
        samples = [sample(y, *map(float, s)) for y, s in zip(labels, scores, strict=True)]
        return evaluate(metric, samples, **meta)

    assert score([2, 5, 7, 2], (2, 5, 7)) == 100
    assert score([2, 5, 7, 5], [7, 2, 5]) == 75
    assert score([5, 2, 2, 7], valid_labels=(2, 5, 7)) == 0
    # what is given goes before what the data set says
    assert score([5, 5, 5, 5], (5,), valid_labels=(2, 5, 7)) == 100
    assert score([0, 1, 1, 4]) == 75  # without any, among all
