# In float32. The tables of relative positions of the 7 x 7 network are interpolated.
_base_ = [
    '../_base_/models/mask2former_r50_ade20k_instance.py',
    '../_base_/datasets/ade20k_instance_640x640_mask2former.py',
    '../_base_/schedules/schedule_160k_mask2former.py',
    '../_base_/default_runtime_det_iter.py',
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
    panoptic_head=dict(in_channels=[192, 384, 768, 1536]),
)
_base_.optim_wrapper.paramwise_cfg.custom_keys['downsample.norm'] = _base_.backbone_norm
