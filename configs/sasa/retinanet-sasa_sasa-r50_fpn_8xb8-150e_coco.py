# All 3x3 convolutions of FPN and heads are attention; appendix A.3.
_base_ = './retinanet_sasa-r50_fpn_8xb8-150e_coco.py'

conv_cfg = dict(type='hybrid_mm.SASAConv2d', window=7, heads=8)
model = dict(neck=dict(conv_cfg=conv_cfg), bbox_head=dict(type='hybrid_mm.SASARetinaHead'))
