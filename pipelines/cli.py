"""`wordmill VERB`, or `python -m pipelines VERB` in a checkout: the command line of all verbs."""

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.building import build_pipeline, compiled, recipe_names
from pipelines.cluster import verbs as cluster_verbs
from pipelines.completion import add_completion_verb
from pipelines.images import publish
from pipelines.local.evaluating import add_evaluate_verb
from pipelines.local.own.pseudo import add_pseudo_verb
from pipelines.local.own.tuning import add_tune_verb
from pipelines.local.scanning import add_charset_verb
from pipelines.local.sweeping import add_sweep_verb
from pipelines.local.using import add_models_verb, add_read_verb, add_serve_verb
from pipelines.output import COMMAND, add_json_option, is_command, print_json, to_type, told_beside
from pipelines.places import CHECKOUT, version_text
from pipelines.profiles import PROFILES
from wordmill.recipe.arguments import from_nought, from_one

RUNNERS = ("subprocess", "docker")
ABOUT = "Makes recognisers of word images: trains, measures, proves and serves them."
GROUPS = {
    "recognisers": ("run", "tune", "pseudo", "compare", "evaluate", "read", "serve", "models", "charset", "accept"),
    "this machine's servers": ("up", "down", "ui", "sweep"),
    "a cluster": ("doctor", "images", "push", "submit", "schedule", "schedules", "unschedule", "compile"),
    "this command": ("completion",),
}


def main(arguments: list[str] | None = None) -> None:
    """Run one verb; what the user or the environment got wrong ends in one line and code 1."""
    options = command_line().parse_args(arguments)
    if CHECKOUT is None:  # else the programs that this starts would take a user's folder `components` for ours
        os.environ.setdefault("PYTHONSAFEPATH", "1")
    try:
        sys.exit(options.verb(options))
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")
    except BrokenPipeError:  # whoever listened has heard enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)


def _compile(options: argparse.Namespace) -> int:
    from wordmill.store.files import write_atomically

    recipe, pipeline = build_pipeline(options, options.nightly)
    output = Path(options.output or f"{recipe.name}.yaml")
    write_atomically(output, compiled(pipeline))
    print(output)
    return 0


def _run(options: argparse.Namespace) -> int:
    from pipelines.local import stages

    stages.start_warm()  # beside what builds the pipeline
    recipe, pipeline = build_pipeline(options, options.nightly)
    if options.hardware and PROFILES[options.hardware].nodes > 1:
        raise ValueError(f"--hardware {options.hardware} takes several nodes of a cluster: submit it")
    from pipelines.local import run as local

    try:
        return local.run_locally(pipeline, recipe.name, options.runner == "docker")
    except KeyboardInterrupt:
        sys.exit("stopped: run it again: what is finished is found, and training goes on from its last checkpoint")


def _up(options: argparse.Namespace) -> int:
    from pipelines.local import services

    for name, value in services.settings().items():
        print(f"{name}={'***' if 'SECRET' in name else value}")
    return 0


def _down(options: argparse.Namespace) -> int:
    from pipelines.local import services

    print(f"stopped: {', '.join(services.down()) or 'nothing was running'}")
    return 0


def _accept(options: argparse.Namespace) -> int:
    from components.fetch.lock import accept
    from pipelines.local import services

    lock = accept(services.open_store(), options.source)
    print(f"forgotten: {options.source} had sha256 {lock['sha256']} on {lock['time']}; its next use counts as first")
    return 0


def _ui(options: argparse.Namespace) -> int:
    import webbrowser

    from pipelines.local import services

    services.settings()
    from wordmill.store.experiments import runs_page  # MLflow takes seconds to import

    address = runs_page(options.recipe)
    if "#" not in address:
        if options.recipe:
            raise ValueError(f"there are no runs of recipe '{options.recipe}' yet")
        print("there are no runs yet: this is MLflow's own front page", file=sys.stderr)
    print(address)
    if os.environ.get("DISPLAY") or sys.platform == "darwin":
        webbrowser.open(address)
    return 0


def _compare(options: argparse.Namespace) -> int:
    from components.report.compare.comparison import compare
    from components.report.compare.page import CHARTS, compare_html
    from components.report.compare.runs import find_run, histories, last
    from components.report.compare.text import comparison_text
    from pipelines.local import services
    from wordmill.store.files import write_atomically

    if bool(options.runs) == bool(options.last) or bool(options.last) != bool(options.recipe):
        named = to_type("compare", 'RUNS="a b"', "a b")
        newest = to_type("compare", "PIPELINE=quickstart LAST=5", "--recipe quickstart --last 5")
        raise ValueError(f"name either runs or a recipe and a number of its last runs: {named}, or {newest}")
    with told_beside(options.json):
        if "MLFLOW_TRACKING_URI" not in os.environ:  # a site's own MLflow is all that this needs, S3 is not
            services.settings()
        runs = [find_run(name) for name in options.runs] or last(options.recipe, options.last)
        comparison = compare(runs)
        page = Path(options.output) if options.output else services.STATE / "compare.html"
        write_atomically(page, compare_html(comparison, histories(runs, CHARTS)))
    if options.json:
        print_json({**asdict(comparison), "page": str(page)})
        return 0
    print(comparison_text(comparison))
    print(page)
    return 0


def other_code() -> argparse.ArgumentParser:
    """Return the options that say what becomes of work that other code has made."""
    parser = argparse.ArgumentParser(add_help=False)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--reuse", dest="other_code", action="store_const", const="reuse", default="",
                        help="take finished and half-done work of other code, which results say for good")  # fmt: skip
    choice.add_argument("--afresh", dest="other_code", action="store_const", const="afresh",
                        help="begin a training again that other code has half done")  # fmt: skip
    return parser


def recipe_options() -> argparse.ArgumentParser:
    """Return the options that make a pipeline."""
    recipe = argparse.ArgumentParser(add_help=False)
    recipe.add_argument("recipe", help=f"a .yaml file, or one of {', '.join(recipe_names())}")
    recipe.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a recipe value, such as train.epochs=1"
    )
    recipe.add_argument("--framework", default="", metavar="NAME", help="pytorch or mindspore instead of the recipe's")
    recipe.add_argument(
        "--benchmarks", default="", metavar="NAMES", help="comma-separated benchmarks instead of the recipe's"
    )
    recipe.add_argument(
        "--catalogue", default="", metavar="FILES", help="comma-separated catalogue files beside the built-in one"
    )
    recipe.add_argument("--from", action="append", default=[], metavar="NAME=PLACE", dest="places",
                        help="take a data set, or an archive of several, from a path or URI")  # fmt: skip
    recipe.add_argument("--smoke", action="store_true", help="the same graph on few pictures, never champion")
    recipe.add_argument(
        "--profile", action="store_true", help="trace some steps of training for the framework's viewer"
    )
    recipe.add_argument("--device", default="", choices=("cpu", "cuda", "npu"), help="what to train on, cpu by default")
    recipe.add_argument("--processes", type=from_nought, default=0, metavar="NUMBER",
                        help="one to a device, 2 by default, with --smoke 1")  # fmt: skip
    recipe.add_argument("--hardware", default="", choices=PROFILES, metavar="PROFILE",
                        help=f"what to train on, instead of these two: {', '.join(PROFILES)}")  # fmt: skip
    return recipe


def describe_verbs(parser: argparse.ArgumentParser, verbs: Any) -> None:
    """Say what there is in groups, each verb on its line, and of each verb in its own help."""
    told = {action.dest: action.help for action in verbs._choices_actions}
    for name, verb in verbs.choices.items():
        verb.description = f"{told[name][0].upper()}{told[name][1:]}."
    lines = [ABOUT]
    for group, names in GROUPS.items():
        lines += ["", f"{group}:", *(f"  {name:<11} {told[name]}" for name in names)]
    parser.description = "\n".join(lines)
    parser.epilog = f"'{parser.prog} VERB --help' says what a verb takes."


def command_line() -> argparse.ArgumentParser:
    """Return the command line of all verbs."""
    name = COMMAND if is_command() else "python -m pipelines"
    parser = argparse.ArgumentParser(prog=name, usage="%(prog)s [-h] [--version] VERB ...",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--version", action="version", version=version_text())
    verbs = parser.add_subparsers(required=True, metavar="VERB", prog=name, help=argparse.SUPPRESS)
    recipe, other = recipe_options(), other_code()
    night = argparse.ArgumentParser(add_help=False)
    night.add_argument(
        "--nightly", action="store_true", help="end well at once where nothing is new since the last time"
    )
    compiles = verbs.add_parser("compile", parents=[recipe, night, other], help="write the pipeline for Kubeflow")
    compiles.add_argument("-o", "--output", default="", help="the file to write, <recipe>.yaml by default")
    compiles.set_defaults(verb=_compile)
    runs = verbs.add_parser("run", parents=[recipe, night, other], help="run the pipeline on this machine")
    runs.add_argument("--runner", default=RUNNERS[0], choices=RUNNERS, help="docker: each stage in its own image")
    runs.set_defaults(verb=_run)
    compares = verbs.add_parser("compare", help="show runs side by side: benchmarks, cost and what differs")
    compares.add_argument("runs", nargs="*", help="run tags or MLflow run ids, or how one of them begins")
    compares.add_argument("--recipe", default="", help="compare the last runs of this recipe")
    compares.add_argument("--last", type=from_one, default=0, help="how many of them")
    compares.add_argument("-o", "--output", default="", help="the page to write, compare.html among the state")
    add_json_option(compares, "the comparison")
    compares.set_defaults(verb=_compare)
    for add in (add_read_verb, add_evaluate_verb, add_serve_verb, add_models_verb, add_charset_verb, add_tune_verb,
                add_pseudo_verb, add_sweep_verb, add_completion_verb):  # fmt: skip
        add(verbs)
    cluster_verbs.add_cluster_verbs(verbs, recipe, other, night)
    publish.add_image_verbs(verbs)
    accepts = verbs.add_parser("accept", help="go on with what a changed source holds now")
    accepts.add_argument("source", help="the source as the error names it")
    accepts.set_defaults(verb=_accept)
    verbs.add_parser("up", help="start the embedded services").set_defaults(verb=_up)
    verbs.add_parser("down", help="stop the embedded services").set_defaults(verb=_down)
    pages = verbs.add_parser("ui", help="start MLflow where needed and open it on a recipe's runs")
    pages.add_argument("recipe", nargs="?", default="", help="whose runs, those of the newest run by default")
    pages.set_defaults(verb=_ui)
    describe_verbs(parser, verbs)
    return parser
