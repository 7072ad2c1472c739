# ResNet-50 of 3/8 of the width: the host of everything that changes a ResNet.
backbone = dict(type='hybrid_mm.PluginResNet', depth=50, base_channels=24, norm_eval=False)
widths = [96, 192, 384, 768]
