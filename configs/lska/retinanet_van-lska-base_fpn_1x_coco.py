_base_ = './retinanet_van-lska-small_fpn_1x_coco.py'

checkpoint = 'checkpoints/van-lska-base_in1k.pth'
model = dict(backbone=dict(arch='base', init_cfg=dict(checkpoint=checkpoint)))
