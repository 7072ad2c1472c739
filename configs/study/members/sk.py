# Selective kernels in place of the 3x3 convolutions.
backbone = dict(
    type='hybrid_mm.AttentionResNet',
    base='hybrid_mm.PluginResNet',
    depth=50,
    base_channels=24,
    norm_eval=False,
    conv2=dict(cfg=dict(type='hybrid_mm.SelectiveKernel')),
)
widths = [96, 192, 384, 768]
host = 'resnet'
