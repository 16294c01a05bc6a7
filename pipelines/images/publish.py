"""`python -m pipelines images` and `push`: the images built here, then in the site's registry, pinned by digest."""

import argparse
import re
import shlex
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import yaml

from pipelines.cluster.site import VALUES, load_site
from pipelines.images.building import ANYWHERE, build_environment, build_stage, docker, inspected, key_of, stages_of
from pipelines.images.references import KEY, LOCK, NAMES, SERVICES, Pushed, read_lock, registry_host, tagged
from pipelines.output import to_type
from wordmill.store.files import write_atomically

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def add_image_verbs(verbs: "Verbs") -> None:
    """Add both verbs to the command line."""
    builds = verbs.add_parser("images", help="build the stages' images with Docker")
    builds.add_argument("environments", nargs="*", default=ANYWHERE, help=f"{', '.join(ANYWHERE)} by default")
    builds.add_argument("--base", default="", help="the image to build on instead of the Dockerfile's; cann needs one")
    builds.add_argument("--options", default="", help="more words for `docker build`, such as secrets and arguments")
    builds.set_defaults(verb=_images)
    pushes = verbs.add_parser("push", help="push the images; their digests go into pipelines and manifests")
    pushes.add_argument("--registry", default="", help="where to, instead of the site's; it becomes the site's")
    pushes.set_defaults(verb=_push)


def _images(options: argparse.Namespace) -> int:
    for environment in options.environments:
        if environment == "cann" and not options.base:
            raise ValueError("image environment 'cann': give one of CANN's images as base, with Python 3.11 and for "
                             "your chip, such as quay.io/ascend/cann:9.0.0-910b-ubuntu22.04-py3.11")  # fmt: skip
        names, started = stages_of(environment), time.monotonic()
        base = build_environment(environment, options.base, shlex.split(options.options))
        print(f"{base}  {inspected(base)['Size'] / 1e9:.2f} GB  {time.monotonic() - started:.0f} s", flush=True)
        for name in names:
            started = time.monotonic()
            built = build_stage(name, base)
            print(f"{tagged(name)}  {f'{time.monotonic() - started:.0f} s' if built else 'as it was'}", flush=True)
    return 0


def _push(options: argparse.Namespace) -> int:
    registry = options.registry or load_site().registry
    if not registry_host(f"{registry}/{SERVICES}"):
        raise ValueError(f"registry '{registry}' names no host: give one, as registry.example.com/team does")
    built = {name: facts for name in NAMES if (facts := inspected(tagged(name)))}
    for name, facts in built.items():
        if facts["Config"]["Labels"].get(KEY) != key_of(name):
            raise ValueError(f"{tagged(name)} was built of other code than this: {to_type('images')}")
    if SERVICES not in built:
        raise ValueError(f"{tagged(SERVICES)} is not here: {to_type('images')}")
    current = {name: entry for name, entry in read_lock().items() if entry.key == key_of(name)}
    pushed = {name: Pushed(digest=push(name, registry, current.get(name)), key=key_of(name)) for name in built}
    write_lock(current | pushed if registry == load_site().registry else pushed)
    write_values(registry, pushed[SERVICES].digest)
    from pipelines.images.bills import bill_of, write_bill  # what only writing them needs

    for name, entry in pushed.items():
        if entry.digest != current.get(name, entry).digest or name not in current or not bill_of(name).exists():
            write_bill(name, entry.digest)
    left = [name for name in NAMES if name not in pushed]
    print(f"{LOCK.name} and {VALUES.name} written" + (f"; not built: {', '.join(left)}" if left else ""))
    return 0


def push(name: str, registry: str, before: Pushed | None) -> str:
    """Push an image that was built here, unless it is there, and return the digest by which the registry knows it."""
    place = f"{registry}/{name}"
    known: list[str] = inspected(tagged(name))["RepoDigests"]  # of all registries that it was pushed to
    if before and f"{place}@{before.digest}" in known:
        print(f"{place}@{before.digest}  as it was", flush=True)
        return before.digest
    tag = f"{place}:{key_of(name)[:12]}"
    docker("tag", tagged(name), tag)
    docker("push", tag)
    known = inspected(tag)["RepoDigests"]
    digest = next(one for one in known if one.startswith(f"{place}@")).removeprefix(f"{place}@")
    print(f"{place}@{digest}", flush=True)
    return digest


def write_lock(pushed: dict[str, Pushed]) -> None:
    """Write the digests by which pipelines name their images from now on."""
    head = "# What `make push` put into the registry: the stages' images by name, each with the key of its contents.\n"
    document = {name: asdict(pushed[name]) for name in NAMES if name in pushed}
    write_atomically(LOCK, head + yaml.safe_dump(document, sort_keys=False))


def write_values(registry: str, services: str) -> None:
    """Write the registry and the services' image into the site's values, and leave all else there as it is."""
    text = VALUES.read_text(encoding="utf-8")
    for key, value in (("registry", registry), ("services", f"{SERVICES}@{services}")):
        text, count = re.subn(rf"^( +{key}: )[^\s#]+", rf"\g<1>{value}", text, flags=re.MULTILINE)
        if count != 1:
            raise ValueError(f"{VALUES.name}: expected one line with '{key}: ...', found {count}")
    write_atomically(VALUES, text)
    load_site()
