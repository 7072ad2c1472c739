_base_ = [
    '../../_base_/models/classifier_resnet.py',
    '../../_base_/datasets/imagenet_1k_plain.py',
    '../../_base_/schedules/imagenet_bs1024_sgd_100e.py',
    '../../_base_/default_runtime_cls.py',
]

model = dict(backbone=dict(norm_eval=False, out_indices=(3,)))
