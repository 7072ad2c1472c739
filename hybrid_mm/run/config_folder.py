"""Where the configs of this package are; found without MMEngine."""

from pathlib import Path

from hybrid_mm.errors import UserError


def config_root() -> Path | None:
    """Folder of the configs of this package: of the source tree, or of the installed wheel."""
    package = Path(__file__).resolve().parents[1]
    for root in (package.parent / 'configs', package / '.mim' / 'configs'):
        if root.is_dir():
            return root
    return None


def installed_configs() -> Path:
    """Folder of the configs of this package, see :func:`config_root`.

    Raises:
        UserError: They are not installed.
    """
    root = config_root()
    if root is None:
        raise UserError('the configs of hybrid_mm are not installed; use a checkout or a wheel')
    return root
