"""`python -m pipelines charset`: the characters of a data set's labels that a recipe's charset lacks."""

import argparse
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipelines.building import new_run_tag, recipe_path
from pipelines.local.evaluating import add_data_options, data_set, stage_program
from pipelines.output import COMMAND, add_json_option, is_command, print_json, told_beside
from wordmill.recipe.catalogue import Entry, to_text
from wordmill.recipe.loading import load_recipe
from wordmill.text.charset import Charset, charset_of

if TYPE_CHECKING:  # importing readers takes a while
    from wordmill.readers.sample import Reader

PRINTED = 40  # characters that are printed
EXAMPLES = 3  # labels of each


def scan_labels(options: argparse.Namespace) -> int:
    """Print which characters of the labels the charset lacks, write them to a file, and say what takes them in."""
    recipe = load_recipe(recipe_path(options.recipe))
    charset, (name, entry) = charset_of(recipe.data), data_set(options)
    with told_beside(options.json):
        labels = read_labels(name, entry)
    found, examples = missing(labels, charset)
    # The space and what a charset's file cannot hold have keys, or no place, of their own.
    added = sorted(symbol for symbol in found if symbol and symbol not in " \0\r\n")
    changes = ["data.space=true"] if " " in found and not recipe.data.space else []
    path = Path(options.output or f"{name}.txt").absolute() if added else None
    if path:
        write_symbols(path, added)
        changes.insert(0, f"data.charset={recipe.data.charset}+{path}")
    changes += ["train.start_charset=union"] if changes else []
    if options.json:
        rows = [{"character": symbol, "labels": count, "examples": examples[symbol]}
                for symbol, count in found.most_common() if symbol]  # fmt: skip
        print_json({"data": name, "labels": len(labels), "outside": found[""], "characters": rows,
                    "file": str(path) if path else None, "set": changes})  # fmt: skip
        return 0
    print(f"{name}: {len(labels):,} labels, {found['']:,} with characters that charset {charset.name} lacks")
    for symbol, count in found.most_common(PRINTED + 1):
        if symbol:
            print(f"  {symbol!r:>6} U+{ord(symbol):04X} {count:>8,}  {', '.join(examples[symbol])}")
    if path:
        print(path)
    if changes:
        print(f"to train with them: {setting(options.recipe, changes)}")
    return 0


def setting(recipe: str, changes: list[str]) -> str:
    """Return how a run is told of changes: by make, unless a path in them has what a shell or make takes apart."""
    if not is_command() and all(shlex.quote(change) == change for change in changes):
        return f'SET="{" ".join(changes)}"'
    called = COMMAND if is_command() else ".venv/bin/python -m pipelines"
    return " ".join([f"{called} run {recipe}", *(f"--set {shlex.quote(change)}" for change in changes)])


def read_labels(name: str, entry: Entry) -> list[str]:
    """Fetch a data set and return its labels; what a reader finds wrong is left out."""
    with fetched(name, entry) as reader:
        return labels_of(reader)


def labels_of(reader: "Reader") -> list[str]:
    """Return a reader's labels; what it finds wrong is left out."""
    return [sample.label for sample in reader.read(range(len(reader))) if not sample.problem]


@contextmanager
def fetched(name: str, entry: Entry) -> "Iterator[Reader]":
    """Fetch a data set and give its reader, whose files are there meanwhile."""
    from pipelines.local import services
    from wordmill.readers.opening import open_reader
    from wordmill.sources.archives import lay_out
    from wordmill.store.artifacts import read_manifest, whole_manifest

    store, run_tag = services.open_store(), new_run_tag("charset")
    output = services.STATE / "runs" / run_tag / "fetched.json"
    stage_program("fetch", run_tag, output, sources=to_text({name: entry}))
    manifest = whole_manifest(store, read_manifest(output).facts["datasets"][name], name)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "source"
        if manifest.objects:
            files = {item.name: store.fetch(item) for item in manifest.objects}
            lay_out(files, root, entry.inside, source=PurePosixPath(entry.source).name)
        yield open_reader(entry, root)


def write_symbols(path: Path, symbols: Iterable[str]) -> None:
    """Write a charset's file."""
    from wordmill.store.files import write_atomically

    write_atomically(path, "".join(f"{symbol}\n" for symbol in symbols))


def missing(labels: Iterable[str], charset: Charset) -> tuple[Counter[str], dict[str, list[str]]]:
    """Return for each character outside the charset how many labels have it, of "" how many have any, and examples."""
    found, examples = Counter[str](), dict[str, list[str]]()
    for label in labels:
        if outside := charset.outside(label):
            found.update(["", *outside])
            for symbol in outside:
                examples.setdefault(symbol, []).extend([label] if found[symbol] <= EXAMPLES else [])
    return found, examples


def add_charset_verb(verbs: Any) -> None:
    """Add the verb to a command line's."""
    parser = verbs.add_parser("charset", help="list the characters of a data set's labels that a charset lacks")
    add_data_options(parser)
    parser.add_argument("--recipe", default="quickstart", help="whose charset")
    parser.add_argument("-o", "--output", default="", help="the file for the characters, DATA.txt by default")
    add_json_option(parser, "the list")
    parser.set_defaults(verb=scan_labels)
