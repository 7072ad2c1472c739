# Recursive gated convolutions of 7x7.
backbone = dict(
    type='hybrid_mm.HorNet',
    arch=dict(
        depths=(2, 2, 5, 2),
        dims=(40, 80, 160, 320),
        orders=(2, 3, 4, 5),
        filter_sizes=(None, None, None, None),
    ),
)
widths = [40, 80, 160, 320]
