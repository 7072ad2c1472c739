# The official head starts from rows of ImageNet-22k's head for the 1,000 classes, this one anew.
_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_deit_384_warped.py',
    '../_base_/schedules/imagenet_bs512_adamw_30e_layer-decay_hornet.py',
    '../_base_/default_runtime_cls.py',
]

checkpoint = 'hybrid_mm://hornet-large_in22k'
model = dict(
    backbone=dict(
        type='hybrid_mm.HorNet',
        arch='large',
        drop_path_rate=0.4,
        pooled=True,
        out_indices=(3,),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    head=dict(in_channels=1536),
    train_cfg=None,
)
train_dataloader = dict(batch_size=16)
