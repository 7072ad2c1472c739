_base_ = './mask-rcnn_vitdet-base_8xb8-lsj-100e_coco.py'

checkpoint = 'hybrid_mm://mae-large_in1k'
model = dict(
    backbone=dict(arch='large', drop_path_rate=0.4, init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=1024),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
