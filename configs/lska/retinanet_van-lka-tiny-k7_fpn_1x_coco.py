_base_ = './retinanet_van-lka-tiny_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://van-lka-tiny-k7_in1k'
model = dict(backbone=dict(kernel_size=7, init_cfg=dict(checkpoint=checkpoint)))
