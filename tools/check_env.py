"""Print installed packages and their providers, what can be used, known problems, and fixes.

Exit status 1 if something will fail.
"""

import platform
import sys
from pathlib import Path

try:
    from hybrid_mm.version import __version__
except ImportError:  # not installed: run from a checkout
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from hybrid_mm.version import __version__

from hybrid_mm.compat import diagnosis, installed
from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> int:
    """Print the table of packages and the findings."""
    options.parser(__doc__).parse_args(argv)
    findings = diagnosis.diagnose()
    print(f'Python {platform.python_version()}  {sys.executable}')
    for name, owners in installed.providers().items():
        version = ', '.join(version for _, version in owners) or '-'
        provider = ', '.join(owner for owner, _ in owners) or 'not installed'
        print(f'{name:12} {version:16} {provider}')
    print(f'hybrid_mm    {__version__:16} {Path(diagnosis.__file__).parents[1]}')
    print(f'accelerator  {accelerator()}')
    works = diagnosis.usable()
    for label, wanted in (('usable', True), ('not usable', False)):
        if names := [name for name, works_here in works.items() if works_here == wanted]:
            print(f'{label:12} {", ".join(names)}')
    print()
    for finding in findings:
        print(finding)
    errors = sum(finding.level == 'error' for finding in findings)
    warnings = sum(finding.level == 'warning' for finding in findings)
    print(f'\n{errors} error{"s" * (errors != 1)}, {warnings} warning{"s" * (warnings != 1)}')
    return int(errors > 0)


def accelerator() -> str:
    """Number and name of the GPUs that torch sees."""
    torch = sys.modules.get('torch')
    if torch is None or not hasattr(torch, 'cuda') or not torch.cuda.is_available():
        return 'none (CPU)'
    count = torch.cuda.device_count()
    return f'{count} x {torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}'


if __name__ == '__main__':
    sys.exit(main())
