# A moving average of the weights is evaluated.
_base_ = './elsa-swin-t_8xb128_in1k.py'

model = dict(backbone=dict(arch='base', drop_path_rate=0.5), head=dict(in_channels=1024))
custom_hooks = [dict(type='EMAHook', momentum=8e-5)]  # decay 0.99992
