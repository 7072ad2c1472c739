# In float32. The tables of relative positions of the 7 x 7 network are interpolated.
_base_ = [
    '../_base_/models/mask2former_r50_cityscapes_semantic.py',
    '../_base_/datasets/cityscapes_512x1024_mask2former.py',
    '../_base_/schedules/schedule_90k_mask2former.py',
    '../_base_/default_runtime_seg.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.DiNAT',
        arch='large',
        kernel_size=11,
        dilations='mask2former',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='hybrid_mm://dinat-large_in22k'),
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
)
_base_.optim_wrapper.paramwise_cfg.custom_keys['downsample.norm'] = _base_.backbone_norm
