_base_ = './retinanet_pvt-t_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://pvt-s_in1k'
model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint=checkpoint)))
