_base_ = [
    '../../_base_/models/upernet_r50.py',
    '../../_base_/datasets/ade20k.py',
    '../../_base_/schedules/schedule_80k.py',
    '../../_base_/default_runtime_seg.py',
]

# Plugins have batch norms without norm_cfg, so all are replaced by SyncBN.
sync_bn = 'torch'
model = dict(backbone=dict(_delete_=True, norm_eval=False))
