_base_ = './mask-rcnn_pvt-t_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://pvt-m_in1k'
model = dict(backbone=dict(arch='medium', drop_path_rate=0.0, init_cfg=dict(checkpoint=checkpoint)))
