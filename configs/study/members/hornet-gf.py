# HorNet with global filters in the last stages.
backbone = dict(
    type='hybrid_mm.HorNet',
    arch=dict(
        depths=(2, 2, 5, 2),
        dims=(40, 80, 160, 320),
        orders=(2, 3, 4, 5),
        filter_sizes=(None, None, (16, 11), (8, 6)),
    ),
)
widths = [40, 80, 160, 320]
host = 'hornet'
