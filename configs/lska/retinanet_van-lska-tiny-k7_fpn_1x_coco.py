_base_ = './retinanet_van-lska-tiny_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://van-lska-tiny-k7_in1k'
model = dict(backbone=dict(kernel_size=7, init_cfg=dict(checkpoint=checkpoint)))
