_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_deit_384_warped.py',
    '../_base_/schedules/imagenet_bs512_adamw_30e_layer-decay.py',
    '../_base_/default_runtime_cls.py',
]

load_from = 'hybrid_mm://replknet-31b_in1k'  # the classifier too
model = dict(
    backbone=dict(
        type='hybrid_mm.RepLKNet',
        arch='31b',
        norm_outputs='last',
        norm_cfg=dict(type='SyncBN'),
        drop_path_rate=0.8,
        out_indices=(3,),
    ),
    head=dict(in_channels=1024),
    train_cfg=None,
)
train_dataloader = dict(batch_size=32)
auto_scale_lr = dict(base_batch_size=1024)  # 32 GPUs x 32 images
