# A small VAN-LSKA with Semantic FPN, trained from scratch on two CPU cores.
# 1200 iterations x 8 crops = 9600 crops = 26 epochs of 367 images.
_base_ = [
    '../_base_/models/fpn_r50.py',
    '../_base_/datasets/camvid.py',
    '../_base_/default_runtime_seg.py',
]
norm_cfg = dict(type='BN', requires_grad=True)
widths = [24, 48, 96, 144]
model = dict(
    data_preprocessor=dict(size={{_base_.crop_size}}, seg_pad_val={{_base_.ignore_index}}),
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.VAN',
        arch=dict(embed_dims=widths, depths=[1, 2, 3, 2], mlp_ratios=[4, 4, 4, 4]),
        attention='lska',
        kernel_size=11,
        # short training from scratch: the branches must contribute from the start
        layer_scale=0.3,
    ),
    neck=dict(in_channels=widths, out_channels=64, norm_cfg=norm_cfg),
    decode_head=dict(
        in_channels=[64, 64, 64, 64],
        channels=64,
        num_classes=11,
        ignore_index={{_base_.ignore_index}},
        norm_cfg=norm_cfg,
        loss_decode=dict(
            # square roots of the classes' median-frequency weights (they cover 0.3% to 33%)
            class_weight=[0.52, 0.44, 2.14, 0.38, 1.0, 0.68, 1.96, 2.0, 0.87, 2.65, 3.92]
        ),
    ),
)

max_iters = 1200
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=300)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=100,
        end=max_iters,
        T_max=max_iters - 100,
        eta_min_ratio=0.01,
    ),
]
default_hooks = dict(checkpoint=dict(interval=300, max_keep_ckpts=1))
auto_scale_lr = dict(enable=False, base_batch_size=8)
randomness = dict(seed=0)
