_base_ = './mask-rcnn_qna-tiny_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://qna-small_in1k'
model = dict(backbone=dict(arch='small', drop_path_rate=0.2, init_cfg=dict(checkpoint=checkpoint)))
