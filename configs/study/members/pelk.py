# Peripheral kernels of 51, 49, 47 and 13 in place of the 7x7 kernels of a ConvNeXt.
backbone = dict(
    type='hybrid_mm.PeLK', arch=dict(depths=(2, 2, 6, 2), dims=(40, 80, 160, 320)), width_factor=1.0
)
widths = [40, 80, 160, 320]
host = 'convnext'
