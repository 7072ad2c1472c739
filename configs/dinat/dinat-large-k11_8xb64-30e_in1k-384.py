# The recipe of windows of 7 x 7, whose tables of relative positions are interpolated; the authors'
# file for 11 x 11 was not published.
_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_deit_384.py',
    '../_base_/schedules/imagenet_bs512_adamw_30e.py',
    '../_base_/default_runtime_cls.py',
]

checkpoint = 'hybrid_mm://dinat-large_in22k'
model = dict(
    backbone=dict(
        type='hybrid_mm.DiNAT',
        arch='large',
        kernel_size=11,
        drop_path_rate=0.35,
        out_indices=(3,),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    head=dict(in_channels=1536),
    train_cfg=None,
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-10))
