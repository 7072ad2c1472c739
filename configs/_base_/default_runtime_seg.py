# Runtime of segmentation configs (scope mmseg).
_base_ = './default_runtime.py'

default_scope = 'mmseg'
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=4000),
    visualization=dict(type='SegVisualizationHook'),
)
log_processor = dict(by_epoch=False)
visualizer = dict(type='SegLocalVisualizer')

# Test-time augmentation; its pipeline is in the files of the data sets.
tta_model = dict(type='SegTTAModel')
