# The recipe of PVT: ACmix's code has no detectors. No weight decay for the mixing rates.
_base_ = './retinanet_pvt-t_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://pvt-t-acmix_in1k'
model = dict(backbone=dict(acmix=True, init_cfg=dict(checkpoint=checkpoint)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(rate=dict(decay_mult=0.0))))
