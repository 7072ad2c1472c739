# RepLKNet with the channels of VAN-B2, with which the LSKA paper compares; it says nothing of the
# training, whose recipe is that of RepLKNet-31B but for the drop path of a network of this size.
_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_deit.py',
    '../_base_/schedules/imagenet_bs2048_adamw_300e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.RepLKNet',
        arch='31t',
        norm_outputs='last',
        norm_cfg=dict(type='SyncBN'),
        drop_path_rate=0.1,
        out_indices=(3,),
    ),
    head=dict(in_channels=512),
)
train_dataloader = dict(batch_size=64)
