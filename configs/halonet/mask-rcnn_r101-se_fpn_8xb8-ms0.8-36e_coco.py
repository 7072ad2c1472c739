_base_ = './mask-rcnn_r50-halo8_fpn_8xb8-ms0.8-36e_coco.py'

checkpoint = 'hybrid_mm://r101-se_in1k'
model = dict(backbone=dict(arch='r101-se', init_cfg=dict(checkpoint=checkpoint)))
