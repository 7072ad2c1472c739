_base_ = './mask-rcnn_van-lka-tiny_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://van-lka-tiny-k65_in1k'
model = dict(backbone=dict(kernel_size=65, init_cfg=dict(checkpoint=checkpoint)))
