_base_ = './mask-rcnn_van-lska-tiny_fpn_1x_coco.py'

checkpoint = 'checkpoints/van-lska-tiny-k11_in1k.pth'
model = dict(backbone=dict(kernel_size=11, init_cfg=dict(checkpoint=checkpoint)))
