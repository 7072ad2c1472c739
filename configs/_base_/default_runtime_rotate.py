# Runtime of configs of MMRotate (scope mmrotate): MMDetection's with a visualizer of rotated boxes.
_base_ = './default_runtime.py'

default_scope = 'mmrotate'
default_hooks = dict(visualization=dict(type='mmdet.DetVisualizationHook'))
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
visualizer = dict(type='RotLocalVisualizer')
