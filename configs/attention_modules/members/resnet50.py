# The plain network.
backbone = dict(type='hybrid_mm.PluginResNet', depth=50)
