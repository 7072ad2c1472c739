# Runtime of configs of human pose (scope mmpose: the package MMPose).
_base_ = './default_runtime.py'

default_scope = 'mmpose'
default_hooks = dict(
    checkpoint=dict(interval=10, save_best='coco/AP', rule='greater'),
    visualization=dict(type='PoseVisualizationHook', enable=False),
)
# As in MMPose's configs: the running statistics of batch norm are those of all GPUs at the test.
custom_hooks = [dict(type='SyncBuffersHook')]
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True, num_digits=6)
visualizer = dict(type='PoseLocalVisualizer')
