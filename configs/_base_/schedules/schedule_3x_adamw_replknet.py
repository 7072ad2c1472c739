# As schedule_3x_adamw.py without weight decay for norms, as RepLKNet is trained. The learning rate
# is published with one image for each GPU, the number of GPUs is not; 16 images are taken for it.
_base_ = './schedule_3x_adamw.py'

_base_.param_scheduler[0].end = 500
optim_wrapper = dict(optimizer=dict(lr=4e-4), paramwise_cfg=dict(norm_decay_mult=0.0))
