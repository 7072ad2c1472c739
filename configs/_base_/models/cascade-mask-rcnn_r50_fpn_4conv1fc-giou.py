# Cascade Mask R-CNN with the box heads of the Swin Transformer's experiments: four convolutions
# with SyncBN and one linear layer, class-wise boxes, GIoU loss on decoded boxes.
_base_ = './cascade-mask-rcnn_r50_fpn.py'

bbox_heads = [
    dict(
        head,
        type='ConvFCBBoxHead',
        num_shared_convs=4,
        num_shared_fcs=1,
        conv_out_channels=256,
        reg_class_agnostic=False,
        reg_decoded_bbox=True,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        loss_bbox=dict(type='GIoULoss', loss_weight=10.0),
    )
    for head in _base_.bbox_heads
]

model = dict(roi_head=dict(bbox_head=bbox_heads))
