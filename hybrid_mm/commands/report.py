"""What ``tools/analysis/report.py`` does once its arguments are read."""

import argparse
import tempfile
from pathlib import Path

from hybrid_mm.analysis import report
from hybrid_mm.run.console import wrote
from hybrid_mm.run.outputs import check_output_file, replacing


def run(args: argparse.Namespace) -> None:
    """Write the page; print its size and the number of results per study."""
    check_output_file(args.out)
    found = report.collect(args.folders)
    with tempfile.TemporaryDirectory() as scratch:
        text = report.page(found, args.title, Path(scratch))
    with replacing(args.out) as path:
        path.write_text(text, encoding='utf-8', errors='replace')
    runs = ', '.join(f'{len(results)} of {study}' for study, results in found.items())
    wrote(args.out, f'{len(text) / 2**20:.1f} MB with {runs}')
