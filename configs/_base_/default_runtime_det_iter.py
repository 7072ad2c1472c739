# As default_runtime_det.py for schedules by iterations: a checkpoint every 5,000 of them.
_base_ = './default_runtime_det.py'

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000))
log_processor = dict(by_epoch=False)
