"""Networks of a tree and their accuracies, for the pages of the papers."""

from hybrid_mm.zoo.metafile import Model
from hybrid_mm.zoo.network_tables import networks


def model(name, dataset, millions, *results):
    data = {
        'Training Data': dataset,
        'Parameters': int(millions * 1e6),
        'FLOPs': 1,
        'Input Size': '1x1',
    }
    tasks = {'box AP': 'Object Detection', 'mIoU': 'Semantic Segmentation'}
    return Model(
        {
            'Name': name,
            'Config': f'{name}.py',
            'Metadata': data,
            'Results': [
                {'Task': tasks[next(iter(m))], 'Metrics': m, 'Source': source}
                for source, m in results
            ],
        }
    )


MODELS = [
    model('x-b_8xb16_in1k', 'ImageNet-1k', 30),
    model('x-a_8xb16_in1k', 'ImageNet-1k', 20),
    model('x-c_8xb16_in1k', 'ImageNet-1k', 10),  # neither detects nor segments
    model('mask-rcnn_x-b_fpn_1x_coco', 'COCO', 50),
    model('mask-rcnn_x-b_fpn_ms-3x_coco', 'COCO', 50, ('paper', {'box AP': 48.0, 'mask AP': 43.1})),
    model('mask-rcnn_x-a_fpn_1x_coco', 'COCO', 40, ('README', {'box AP': 41.0})),
    model('mask-rcnn_x-a_fpn-wide_1x_coco', 'COCO', 45, ('measured', {'box AP': 1.0})),
    model(
        *('x-a_upernet_8xb2-160k_ade20k-512x512', 'ADE20K', 60),
        ('README', {'mIoU': 44.0}),
        ('paper', {'mIoU': 45.0, 'mIoU (ms+flip)': 46.0}),
    ),
]


def test_networks():
    """By size; the paper before other sources, nothing of ours; names where heads are the same."""
    text = networks(
        MODELS,
        lambda model, text: f'[{text}]',
        {'x-a_upernet_8xb2-160k_ade20k-512x512': 'x-a_in1k', 'mask-rcnn_x-b_fpn_1x_coco': 'x-b'},
    )
    assert text.splitlines() == [
        '| Network | Parameters (M) | COCO: box / mask AP | ADE20K: mIoU / multi-scale | Weights |',
        '| --- | --- | --- | --- | --- |',
        '| x-a | 20.0 | 41.0 / - [mask-rcnn_fpn_1x_coco]<br>[mask-rcnn_fpn-wide_1x_coco] '
        '| 45.0 / 46.0 [UperNet 160k] | `x-a_in1k` |',
        '| x-b | 30.0 | [Mask R-CNN 1x]<br>48.0 / 43.1 [Mask R-CNN 3x] |  | `x-b` |',
    ]
