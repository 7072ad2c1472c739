_base_ = './retinanet_van-lska-small_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://van-lska-base_in1k'
model = dict(backbone=dict(arch='base', init_cfg=dict(checkpoint=checkpoint)))
