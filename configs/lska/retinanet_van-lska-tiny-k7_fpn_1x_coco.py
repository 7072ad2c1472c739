_base_ = './retinanet_van-lska-tiny_fpn_1x_coco.py'

checkpoint = 'checkpoints/van-lska-tiny-k7_in1k.pth'
model = dict(backbone=dict(kernel_size=7, init_cfg=dict(checkpoint=checkpoint)))
