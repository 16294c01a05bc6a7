import argparse

from components.fetch.stage import run
from wordmill.recipe.catalogue import from_text, redirect, to_text

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m components.fetch", description=run.__doc__)
    parser.add_argument("--sources", required=True, help="JSON of catalogue entries by data set name")
    parser.add_argument("--from", action="append", default=[], metavar="NAME=PLACE", dest="places",
                        help="take a data set, or an archive, from a path or URI instead")  # fmt: skip
    parser.add_argument("--run-tag", required=True)
    parser.add_argument("--output", required=True, help="where the manifest goes")
    options = parser.parse_args()
    try:
        sources = to_text(redirect(from_text(options.sources), options.places))
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    print(run(sources=sources, run_tag=options.run_tag, output=options.output))
