_base_ = './retinanet_pvt-t_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://pvt-l_in1k'
model = dict(backbone=dict(arch='large', drop_path_rate=0.0, init_cfg=dict(checkpoint=checkpoint)))
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
