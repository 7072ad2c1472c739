# Runtime of detection configs (scope mmdet).
_base_ = './default_runtime.py'

default_scope = 'mmdet'
default_hooks = dict(visualization=dict(type='DetVisualizationHook'))
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
visualizer = dict(type='DetLocalVisualizer')

# Test-time augmentation; its pipeline is in the files of the data sets.
tta_model = dict(
    type='hybrid_mm.InstanceTTAModel',
    tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
)
