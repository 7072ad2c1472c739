# As ade20k_instance_640x640_mask2former.py with panoptic annotations of 100 things and 50 stuff
# classes (MMDetection's tools/dataset_converters/ade20k2coco.py DATA --task panoptic, which has the
# things first, unlike Mask2Former's own script; needs the package panopticapi).
_base_ = './ade20k_instance_640x640_mask2former.py'

dataset_type = 'ADE20KPanopticDataset'
data_root = _base_.data_root

_base_.train_pipeline[1] = dict(
    type='LoadPanopticAnnotations', with_bbox=True, with_mask=True, with_seg=True
)
_base_.test_pipeline[2] = dict(type='LoadPanopticAnnotations')
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        ann_file='ade20k_panoptic_train.json',
        data_prefix=dict(seg='ade20k_panoptic_train/'),
        pipeline=_base_.train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        ann_file='ade20k_panoptic_val.json',
        data_prefix=dict(seg='ade20k_panoptic_val/'),
        pipeline=_base_.test_pipeline,
    )
)
test_dataloader = val_dataloader

val_evaluator = dict(
    _delete_=True,
    type='CocoPanopticMetric',
    ann_file=data_root + '/ade20k_panoptic_val.json',
    seg_prefix=data_root + '/ade20k_panoptic_val/',
)
test_evaluator = val_evaluator
