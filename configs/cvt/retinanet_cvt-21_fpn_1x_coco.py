_base_ = './retinanet_cvt-13_fpn_1x_coco.py'

checkpoint = 'checkpoints/cvt-21_in1k.pth'
model = dict(backbone=dict(arch='21', init_cfg=dict(checkpoint=checkpoint)))
