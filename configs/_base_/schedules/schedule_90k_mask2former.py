# As schedule_160k_mask2former.py in 90k iterations of Cityscapes.
_base_ = './schedule_160k_mask2former.py'

train_cfg = dict(max_iters=90000)
_base_.param_scheduler[0].end = 90000
