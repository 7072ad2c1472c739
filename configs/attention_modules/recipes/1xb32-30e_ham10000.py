# The paper's split, image size and schedule are not published: all of them are our choice.
_base_ = [
    '../../_base_/models/classifier_resnet.py',
    '../../_base_/datasets/ham10000.py',
    '../../_base_/schedules/ham10000_bs32_sgd_30e.py',
    '../../_base_/default_runtime_cls.py',
]

model = dict(
    data_preprocessor=dict(num_classes=7),
    backbone=dict(norm_eval=False, out_indices=(3,)),
    head=dict(num_classes=7, loss=dict(_delete_=True, type='CrossEntropyLoss')),
)
