"""Where things are outside of the packages: in a checkout below it, for an installed command where users keep such."""

import os
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # of pipelines/, components/ and wordmill/: a checkout, or site-packages
_VALUES = Path("manifests", "site", "values.yaml")
CHECKOUT = ROOT if (ROOT / _VALUES).is_file() else None


def state_folder() -> Path:
    """Return the folder of runs and embedded services: WORDMILL_STATE, a checkout's .state, else the user's (XDG)."""
    if named := os.environ.get("WORDMILL_STATE"):
        return Path(named).absolute()
    return CHECKOUT / ".state" if CHECKOUT else user_folder("XDG_STATE_HOME", ".local/state")


def cache_folder(state: Path) -> Path:
    """Return the folder of cached objects: WORDMILL_CACHE, else among the state, else the user's (XDG)."""
    if named := os.environ.get("WORDMILL_CACHE"):
        return Path(named)
    own = CHECKOUT is None and "WORDMILL_STATE" not in os.environ
    return user_folder("XDG_CACHE_HOME", ".cache") if own else state / "cache"


def user_folder(variable: str, usual: str) -> Path:
    """Return wordmill's folder below a base folder of the XDG specification, which takes absolute paths alone."""
    named = Path(os.environ.get(variable, ""))
    return (named if named.is_absolute() else Path.home() / usual) / "wordmill"


def values_file() -> Path:
    """Return the site's values: WORDMILL_SITE, a checkout's, else those that come with the package."""
    if named := os.environ.get("WORDMILL_SITE"):
        return Path(named).absolute()
    return CHECKOUT / _VALUES if CHECKOUT else ROOT / "pipelines" / "site" / _VALUES.name


def lock_file() -> Path:
    """Return the file of the images that were pushed: a checkout's, else the one beside the site's values."""
    return (CHECKOUT or values_file().parent) / "images.lock.yaml"


def checkout() -> Path:
    """Return the checkout that images are built of; RuntimeError where the package was installed without one."""
    if CHECKOUT is None:
        raise RuntimeError(f"images are built of a checkout, and {ROOT} is none: run the command in one's environment, "
                           "pip install --editable FOLDER")  # fmt: skip
    return CHECKOUT


def version_text() -> str:
    """Return what this is, its version, and where it lies."""
    if CHECKOUT is None:
        return f"wordmill {metadata.version('wordmill')}, {ROOT}"
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return f"{project['name']} {project['version']}, {CHECKOUT}"
