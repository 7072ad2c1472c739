_base_ = './mask2former_van-b2_8xb2-lsj-50e_coco-panoptic.py'

checkpoint = 'hybrid_mm://van-b6_in22k'
model = dict(
    backbone=dict(arch='b6', drop_path_rate=0.5, init_cfg=dict(checkpoint=checkpoint)),
    panoptic_head=dict(in_channels=[96, 192, 384, 768], num_queries=200),
)
