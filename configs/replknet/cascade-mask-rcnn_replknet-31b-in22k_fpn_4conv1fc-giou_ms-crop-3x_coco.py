_base_ = './cascade-mask-rcnn_replknet-31b_fpn_4conv1fc-giou_ms-crop-3x_coco.py'

checkpoint = 'hybrid_mm://replknet-31b_in22k'
model = dict(backbone=dict(drop_path_rate=0.4, init_cfg=dict(checkpoint=checkpoint)))
