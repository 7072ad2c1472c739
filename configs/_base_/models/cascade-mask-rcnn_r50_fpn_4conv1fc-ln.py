# As cascade-mask-rcnn_r50_fpn_4conv1fc.py with layer norms in neck and heads and batches padded to
# squares of 1024, as in the experiments of ViTDet.
_base_ = './cascade-mask-rcnn_r50_fpn_4conv1fc.py'

norm_cfg = dict(type='hybrid_mm.LN2d', eps=1e-6)
for head in _base_.bbox_heads:
    head.norm_cfg = norm_cfg
model = dict(
    data_preprocessor=dict(pad_size_divisor=1024),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=_base_.bbox_heads, mask_head=dict(norm_cfg=dict(_delete_=True, **norm_cfg))
    ),
)
