# From scratch, appendix A.3. It names a jitter without its range: here that of AA-ResNet.
_base_ = [
    '../_base_/models/retinanet_r50_fpn_scratch.py',
    '../_base_/datasets/coco_detection_640x640.py',
    '../_base_/schedules/schedule_150e_cosine.py',
    '../_base_/default_runtime_det.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.SASAResNet',
        arch='r50',
        stem='attention',
        norm_cfg=dict(type='SyncBN'),
    )
)

# one epoch of warm-up from 0
_base_.param_scheduler[0].update(
    start_factor=1e-6, by_epoch=True, end=1, convert_to_iter_based=True
)
_base_.param_scheduler[1].update(begin=1, T_max=149)
optim_wrapper = dict(optimizer=dict(lr=0.12))
