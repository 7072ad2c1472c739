_base_ = './retinanet_van-b1_fpn_1x_coco.py'

checkpoint = 'checkpoints/van-b2_in1k.pth'
model = dict(backbone=dict(arch='b2', init_cfg=dict(checkpoint=checkpoint)))
