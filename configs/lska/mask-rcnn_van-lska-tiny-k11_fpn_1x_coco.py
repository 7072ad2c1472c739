_base_ = './mask-rcnn_van-lska-tiny_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://van-lska-tiny-k11_in1k'
model = dict(backbone=dict(kernel_size=11, init_cfg=dict(checkpoint=checkpoint)))
