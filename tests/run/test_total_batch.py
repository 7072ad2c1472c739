"""The total batch of a run, with gradients that are accumulated, and the learning rate for it."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader

from hybrid_mm.errors import UserError
from hybrid_mm.run.total_batch import count_accumulation, describe, scale_rates


def wrapper(count=1, lr=0.1, groups=1):
    parameters = [dict(params=[torch.zeros(1)], lr=lr * (i + 1)) for i in range(groups)]
    return OptimWrapper(torch.optim.SGD(parameters, lr=lr), accumulative_counts=count)


def runner(images=2, processes=1, batch_sampler=None):
    lines = []
    loader = SimpleNamespace(batch_size=images, batch_sampler=batch_sampler)
    logger = SimpleNamespace(info=lines.append)
    return SimpleNamespace(
        train_dataloader=loader, world_size=processes, logger=logger, lines=lines
    )


def rates(one):
    return [group['lr'] for group in one.optimizer.param_groups]


@pytest.mark.parametrize(('images', 'processes', 'count', 'ratio', 'line'), [
    (2, 1, 8, 1, '16 = 2 images x 8 accumulated; the learning rate is meant for 16, and scaled by '
                 '1'),
    (2, 1, 1, 0.125, '2 = 2 images; the learning rate is meant for 16, and scaled by 0.125'),
    (4, 8, 2, 4, '64 = 4 images x 8 processes x 2 accumulated; the learning rate is meant for 16, '
                 'and scaled by 4'),
])  # fmt: skip
def test_scaled_by_all_images_of_a_step(images, processes, count, ratio, line):
    run, one = runner(images, processes), wrapper(count, groups=2)
    scale_rates(run, one, dict(enable=True, base_batch_size=16))
    assert rates(one) == pytest.approx([0.1 * ratio, 0.2 * ratio])
    assert one.base_param_settings['lr'] == pytest.approx(0.1 * ratio)  # in the log
    assert run.lines == [f'total batch: {line}']


def test_not_scaled_unless_asked():
    for settings, line in (
        (dict(base_batch_size=16), '; the learning rate is meant for 16, --auto-scale-lr would'),
        (dict(enable=False, base_batch_size=2), ''),
        (None, ''),
    ):
        run, one = runner(), wrapper()
        scale_rates(run, one, settings)
        assert rates(one) == [0.1]
        assert run.lines[0].startswith(f'total batch: 2 = 2 images{line}')
        run.optim_wrapper = one
        assert describe(run, settings) == run.lines[0]


def test_several_optimizers():
    run, wrappers = runner(), OptimWrapperDict(a=wrapper(8), b=wrapper(1, lr=0.2))
    scale_rates(run, wrappers, dict(enable=True, base_batch_size=16))
    assert [rates(one) for one in wrappers.values()] == [[0.1], [0.025]]
    assert [line.split(';')[0] for line in run.lines] == [
        'total batch of a: 16 = 2 images x 8 accumulated',
        'total batch of b: 2 = 2 images',
    ]


def test_batches_of_a_sampler():
    run = runner(None, batch_sampler=SimpleNamespace(batch_size=4))
    scale_rates(run, wrapper(), None)
    assert run.lines == ['total batch: 4 = 4 images']
    unknown = runner(None, batch_sampler=[])
    scale_rates(unknown, wrapper(), dict(base_batch_size=16))
    assert unknown.lines == []
    with pytest.raises(UserError, match='the batch size of train_dataloader is not known'):
        scale_rates(unknown, wrapper(), dict(enable=True, base_batch_size=16))


def test_of_a_flexible_runner():
    one = wrapper(8)
    run = runner()
    run.strategy = SimpleNamespace(
        optim_wrapper=one, _auto_scale_lr=dict(enable=True, base_batch_size=4)
    )
    count_accumulation(run)
    run.strategy._scale_lr()
    assert rates(one) == pytest.approx([0.4])


def test_an_epoch_has_a_batch():
    for images, ok in ((3, False), (4, True)):
        run = runner(4)
        run.train_dataloader = DataLoader(range(images), batch_size=4, drop_last=True)
        run.train_loop = object.__new__(EpochBasedTrainLoop)
        if ok:
            scale_rates(run, wrapper(), None)
        else:
            with pytest.raises(UserError, match=r'no batch: 3 images .* of less than 4; set'):
                scale_rates(run, wrapper(), None)
