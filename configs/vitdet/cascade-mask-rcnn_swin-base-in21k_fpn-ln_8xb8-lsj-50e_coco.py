# ViTDet's rival on the same recipe: MMDetection's Swin-B.
# 8 GPUs x 8 images
_base_ = [
    '../_base_/models/cascade-mask-rcnn_r50_fpn_4conv1fc-ln.py',
    '../_base_/datasets/coco_instance_lsj_1024.py',
    '../_base_/schedules/schedule_bs64_lsj-50e_adamw.py',
    '../_base_/default_runtime_det_iter.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        embed_dims=128,
        depths=[2, 2, 18, 2],
        num_heads=[4, 8, 16, 32],
        drop_path_rate=0.4,
        convert_weights=True,
        init_cfg=dict(type='Pretrained', checkpoint='hybrid_mm://swin-base_in21k'),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
optim_wrapper = dict(optimizer=dict(lr=4e-5, weight_decay=0.05))
_base_.optim_wrapper.paramwise_cfg.custom_keys.relative_position_bias_table = dict(decay_mult=0.0)
