# Runtime of classification configs whose schedule counts iterations.
_base_ = './default_runtime_cls.py'

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2000))
log_processor = dict(by_epoch=False)
