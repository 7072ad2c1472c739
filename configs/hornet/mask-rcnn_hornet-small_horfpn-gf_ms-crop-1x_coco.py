_base_ = './mask-rcnn_hornet-small_fpn_ms-crop-1x_coco.py'

model = dict(neck=dict(type='hybrid_mm.HorFPN', filter_size=(32, 17)))
