# Our recipe, with the exceptions from weight decay of the authors' fine-tuning; the paper has DETR
# only, whose schedule was not published.
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/schedule_1x_adamw_swin.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://qna-tiny_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.QnAViT',
        arch='tiny',
        drop_path_rate=0.05,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
_base_.optim_wrapper.paramwise_cfg.custom_keys.update(
    {key: dict(decay_mult=0.0) for key in ('attn.scale', 'attn.query')}
)
