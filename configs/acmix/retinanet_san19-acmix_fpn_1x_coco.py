_base_ = './retinanet_san10-acmix_fpn_1x_coco.py'

checkpoint = 'checkpoints/san19-acmix_in1k.pth'
model = dict(backbone=dict(arch='san19', init_cfg=dict(checkpoint=checkpoint)))
