_base_ = './cascade-mask-rcnn_replknet-31b_fpn_4conv1fc-giou_ms-crop-3x_coco.py'

checkpoint = 'hybrid_mm://replknet-31l_in22k'
model = dict(
    backbone=dict(arch='31l', drop_path_rate=0.7, init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)
