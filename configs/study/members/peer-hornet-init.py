# MMPretrain's HorNet with the initial values of the authors' code, which ours has as well.
_base_ = 'peer-hornet.py'
backbone = dict(
    init_cfg=dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02, bias=0.0),
)
