"""A metric with a file of its own: which images it knows is looked at before the first step."""

from types import SimpleNamespace

import pytest
from mmengine.evaluator import BaseMetric, Evaluator

from hybrid_mm.engine.hooks.evaluated_images import EvaluatedImagesHook
from hybrid_mm.errors import UserError


class Metric(BaseMetric):
    default_prefix = 'own'  # without one, MMEngine logs a warning

    def __init__(self, ids, file='own.json'):
        super().__init__()
        images = {number: dict(file_name=f'{number}.png') for number in ids}
        self._coco_api, self.ann_file = SimpleNamespace(imgs=images), file

    def process(self, data_batch, data_samples):
        pass

    def compute_metrics(self, results):
        return {}


class Data(list):
    ann_file = 'val.json'

    def get_data_info(self, index):
        return dict(img_id=self[index], img_path=f'/some/{self[index]}.png')


def look(images, listed, file='own.json', kind=Evaluator, renamed=()):
    metric = Metric(listed, file)
    for number in renamed:
        metric._coco_api.imgs[number]['file_name'] = f'folder/{number}{number}.png'
    evaluator = kind([metric])
    loop = SimpleNamespace(evaluator=evaluator, dataloader=SimpleNamespace(dataset=Data(images)))
    runner = SimpleNamespace(_val_loop=loop, _test_loop=dict(type='TestLoop'))
    EvaluatedImagesHook().before_run(runner)


def test_images_of_data_set_and_metric(capsys):
    look([1, 2], [2, 1])
    look([1, 2], [2, 1], 'val.json')
    look([None, None], [1])  # videos
    assert 'warning: ' not in capsys.readouterr().err
    with pytest.raises(UserError, match=r'own\.json does not list 1 of the 3 images .*\(ids 5, '):
        look([1, 2, 5], [1, 2, 3, 4])
    for file in ('own.json', 'val.json'):
        look([1, 2], [1, 2, 3, 4], file)
        text = f'{file} lists 2 images that the data set has not (2 images of val.json)'
        assert text in capsys.readouterr().err


def test_ids_of_other_images():
    look([1, 2], [1, 2], 'val.json', renamed=[2])  # one file: nothing to compare
    with pytest.raises(UserError, match=r'image 2 is 22\.png in .*own\.json, but 2\.png in'):
        look([1, 2], [1, 2], renamed=[2])


def test_several_data_sets_are_left_alone():
    """Each metric gets the images of its own data set."""
    look([1, 2, 3], [3], kind=type('MultiDatasetsEvaluator', (Evaluator,), {}))
