# Gather-excite with learned depthwise gathering over an extent of 4 in every block: the global
# extent is tied to one size of image.
backbone = dict(
    type='hybrid_mm.PluginResNet',
    depth=50,
    plugins=[dict(cfg=dict(type='hybrid_mm.GatherExcite', extent=4), position='after_conv3')],
)
