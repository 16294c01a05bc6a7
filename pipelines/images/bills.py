"""A bill of materials beside each digest, in CycloneDX: the packages of the image, and the files of this project."""

import hashlib
import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from pipelines.images.references import LOCK, split_name, tagged
from pipelines.images.rooms import held
from pipelines.places import ROOT
from wordmill.store.files import write_atomically

# Run in the image: its Python, the distributions of its environment, the packages of its Debian.
LISTING = """
import importlib.metadata, json, platform, subprocess
debian = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}\\n"], capture_output=True, text=True).stdout
found = {(each.metadata["Name"], each.version) for each in importlib.metadata.distributions()}
print(json.dumps({"generic": [["python", platform.python_version()]], "pypi": sorted(found),
                  "deb": [line.split() for line in debian.splitlines()]}))
"""


def bill_of(name: str) -> Path:
    """Return where the bill of an image lies."""
    return LOCK.with_name("images.sbom") / f"{name}.cdx.json"


def write_bill(name: str, digest: str) -> None:
    """Write what is in an image that is here and that a registry knows by this digest."""
    packages = _listed(name)
    image = Component(name=name, version=digest, type=ComponentType.CONTAINER, purl=PackageURL("oci", name=name,
                      version=digest), bom_ref=digest)  # fmt: skip
    # The same image has the same bill: no time, and a number from its digest.
    metadata = BomMetaData(component=image)
    bom = Bom(components=[*_components(packages), *_files(name)], metadata=metadata,
              serial_number=uuid.uuid5(uuid.NAMESPACE_URL, digest))  # fmt: skip
    bom.register_dependency(image, bom.components)
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    document["metadata"].pop("timestamp", None)
    bill_of(name).parent.mkdir(exist_ok=True)
    write_atomically(bill_of(name), json.dumps(document, indent=1) + "\n")


def _listed(name: str) -> dict[str, list[tuple[str, str]]]:
    command = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "python3", tagged(name), "-c", LISTING]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{tagged(name)} does not say what is in it: {done.stderr.strip()[-300:]}")
    found: dict[str, list[tuple[str, str]]] = json.loads(done.stdout)
    return found


def _components(packages: dict[str, list[tuple[str, str]]]) -> Iterator[Component]:
    for kind, found in packages.items():
        for name, version in found:
            place = PackageURL(kind, namespace="debian" if kind == "deb" else None, name=name, version=version)
            yield Component(name=name, version=version, purl=place, bom_ref=str(place))


def _files(name: str) -> Iterator[Component]:
    for path in held(*split_name(name)):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        relative = path.relative_to(ROOT).as_posix()
        yield Component(name=relative, type=ComponentType.FILE, bom_ref=relative,
                        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=content)])  # fmt: skip
