"""Summaries of evaluations under corruption, and the accuracy among some classes."""

import math

import pytest
import torch
from mmengine.registry import METRICS

import hybrid_mm.registry  # noqa: F401
from hybrid_mm.data.corruptions import BENCHMARK, CORRUPTIONS
from hybrid_mm.evaluation.robustness import ALEXNET_ERROR, mce, performance_under_corruption


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


def test_mpc_and_rpc():
    found = performance_under_corruption(0.4, {'fog': [0.3, 0.1], 'snow': [0.2, 0.0]})
    assert found == dict(clean=0.4, mPC=pytest.approx(0.15), rPC=pytest.approx(37.5))
    assert performance_under_corruption(0.4, {'fog': [0.3, None]})['mPC'] is None
    assert performance_under_corruption(0.0, {'fog': [0.0]})['rPC'] is None
    assert performance_under_corruption(0.4, {})['mPC'] is None


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
