_base_ = './cascade-mask-rcnn_swin-base-in21k_fpn-ln_8xb8-lsj-50e_coco.py'

checkpoint = 'hybrid_mm://swin-large_in21k'
model = dict(
    backbone=dict(embed_dims=192, num_heads=[6, 12, 24, 48], init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)
