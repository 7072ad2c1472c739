_base_ = './mask-rcnn_pvt-t_fpn_1x_coco.py'

checkpoint = 'checkpoints/pvt-m_in1k.pth'
model = dict(backbone=dict(arch='medium', drop_path_rate=0.0, init_cfg=dict(checkpoint=checkpoint)))
