# ConvNeXt's semantic_segmentation
_base_ = [
    '../../_base_/models/upernet_r50.py',
    '../../_base_/datasets/ade20k.py',
    '../../_base_/schedules/schedule_160k_adamw.py',
    '../../_base_/default_runtime_seg.py',
]

model = dict(
    backbone=dict(_delete_=True, drop_path_rate=0.4),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(lr=0.0001, weight_decay=0.05),
    constructor='mmseg.LearningRateDecayOptimizerConstructor',
    paramwise_cfg=dict(_delete_=True, decay_rate=0.9, decay_type='stage_wise', num_layers=6),
)
