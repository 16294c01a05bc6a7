"""`python -m pipelines sweep`: what takes room in the store and nothing names any more."""

import argparse
from typing import Any

from pipelines.output import to_type
from wordmill.recipe.arguments import days
from wordmill.store.sweeping import GRACE_S, Swept

DAYS = 30.0


def sweep_store(options: argparse.Namespace) -> int:
    """List the objects that no work of the last days and no registered model names, and delete them where told."""
    from pipelines.local import services
    from wordmill.store.experiments import version_tags
    from wordmill.store.sweeping import sweep

    if options.days < 1:
        raise ValueError(f"--days: found {options.days:g}, expected 1 or more: runs of today name what they work with")
    store = services.open_store()
    swept = sweep(store, options.days, version_tags(), options.delete)
    for key in sorted(swept.unnamed) if options.list else ():
        print(f"{swept.unnamed[key]:>15,}  {key}")
    print(sweep_text(store.bucket, swept, options.days, options.delete))
    return 0


def sweep_text(bucket: str, swept: Swept, days: float, delete: bool) -> str:
    """Return what was found, what may go and what went, in a line or two."""
    total, ripe = sum(swept.unnamed.values()), sum(swept.unnamed[key] for key in swept.ripe)
    lines = [f"bucket '{bucket}': {len(swept.unnamed):,} objects, {total / 1e9:.2f} GB, that no work of the last "
             f"{days:g} days and no registered model names"]  # fmt: skip
    if delete:
        lines.append(f"deleted {swept.deleted:,}; what was first listed less than {GRACE_S / 3600:.0f} h ago stays")
    else:
        lines.append(f"{len(swept.ripe):,} of them, {ripe / 1e9:.2f} GB, were listed {GRACE_S / 3600:.0f} h ago or "
                     f"before: {to_type('sweep', 'DELETE=1', '--delete')} deletes these")  # fmt: skip
    return "\n".join(lines)


def add_sweep_verb(verbs: Any) -> None:
    """Add the verb to a command line's."""
    parser = verbs.add_parser("sweep", help="list what takes room in S3 and nothing names any more")
    parser.add_argument("--days", type=days, default=DAYS, help="what younger manifests name stays")
    parser.add_argument("--delete", action="store_true", help="delete what an earlier sweep has listed, a day ago")
    parser.add_argument("--list", action="store_true", help="print every object")
    parser.set_defaults(verb=sweep_store)
