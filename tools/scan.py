"""`python -m tools.scan`: known vulnerabilities in what is installed, secrets in this tree and in the images' layers.

Vulnerabilities are asked of OSV with pip-audit: whatever it could not ask of counts as found. Secrets are looked for
by detect-secrets. Of an image's layers that is all but what packages and the base installed there; of those, files
that only ever hold secrets are looked for by their names.
"""

import argparse
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from detect_secrets.core.secrets_collection import SecretsCollection
from detect_secrets.settings import default_settings, get_settings

from pipelines.images.building import ANYWHERE, stages_of
from pipelines.images.references import tagged

ROOT = Path(__file__).resolve().parents[1]
# Names of secrets, of the keys in them and of jobs, as compiled pipelines, manifests and tests have them.
NAMES = [
    r"""["' ]wordmill-(s3|webhook|database|train-[0-9a-f]{16})\b""",
    r"secretKey: .?(access_key|secret_key|url).?$",
    r"artifact_secret: .?mlpipeline-minio-artifact",
    r'"secret_key": "AWS_SECRET_ACCESS_KEY"',
    r"//me:word@db/",
    r"WORDMILL_COMMIT=",
]
INSTALLED = re.compile(
    r"^(\./)?(usr|bin|sbin|lib\w*|opt|var/lib/dpkg|var/cache|var/log|etc/ssl|etc/alternatives|etc/[\w.]+\.conf$)(/|$)"
)
HOLDERS = re.compile(r"(^|/)(pip\.conf|\.netrc|\.pypirc|\.git-credentials|id_(rsa|ecdsa|ed25519)|\.aws/credentials|"
                     r"\.docker/config\.json|\.kube/config|run/secrets/.+)$")  # fmt: skip


def main() -> None:
    """Do what the options name, all by default; the exit code is 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tools.scan", description=__doc__)
    parser.add_argument("what", nargs="*", help="vulnerabilities, tree, images")
    wanted = parser.parse_args().what or ["vulnerabilities", "tree", "images"]
    searches = {"vulnerabilities": vulnerabilities, "tree": tree, "images": secrets_in_images}
    found = {what: searches[what]() for what in wanted}
    for what, findings in found.items():
        print(f"{what}: {len(findings)} found", *findings, sep="\n  ", flush=True)
    sys.exit(any(found.values()))


def vulnerabilities() -> list[str]:
    """Return the known vulnerabilities of the pinned packages, and the packages that could not be asked of."""
    command = [str(Path(sys.executable).with_name("pip-audit")), "--no-deps", "--disable-pip", "--strict",
               "--format=json", "--vulnerability-service=osv", "--progress-spinner=off",
               "--requirement=requirements/constraints.txt"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return (
        audited(done.stdout)
        if done.stdout
        else [f"none could be asked of, docs/advisories.md has those known: {done.stderr.splitlines()[-1]}"]
    )


def audited(report: str) -> list[str]:
    """Return what pip-audit's report, as JSON, has found, one line each."""
    lines = []
    for package in json.loads(report)["dependencies"]:
        name = f"{package['name']} {package.get('version', '')}".rstrip()
        lines += [f"{name}: {package['skip_reason']}"] if "skip_reason" in package else []
        lines += [f"{name}: {known['id']}, mended in {', '.join(known['fix_versions']) or 'no version yet'}"
                  for known in package.get("vulns", [])]  # fmt: skip
    return lines


def tree() -> list[str]:
    """Return what looks like a secret in the files that are, or could be, committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return secrets(ROOT, [name for name in names if name and (ROOT / name).is_file()])


def secrets_in_images() -> list[str]:
    """Return what looks like a secret in the layers and the settings of the images that `make images` builds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = [tagged(name) for environment in ANYWHERE for name in stages_of(environment)]
        holders = [*unpacked(images, folder)]
        names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        print(f"{len(names)} files of {len(images)} images are looked through", flush=True)
        return holders + secrets(folder, names)


def unpacked(references: list[str], folder: Path) -> Iterator[str]:
    """Put what the images' layers hold besides packages below a folder; yield files that should not be there at all."""
    process = subprocess.Popen(["docker", "save", *references], stdout=subprocess.PIPE)
    with process, tarfile.open(fileobj=process.stdout, mode="r|") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            place = folder / re.sub(r"\W", "_", member.name)
            if content and member.name.endswith(".tar"):
                yield from layer(content, member.name[:12], place)
            elif content and member.name.endswith(".json"):
                place.write_text(json.dumps(json.load(content), indent=1), encoding="utf-8")
    if process.returncode:
        raise RuntimeError(f"docker save ended with code {process.returncode}: make images")


def layer(content: IO[bytes], name: str, folder: Path) -> Iterator[str]:
    """Unpack a layer's own files; yield the names of those that only ever hold secrets."""
    with tarfile.open(fileobj=content, mode="r|") as files:
        for file in files:
            if not file.isfile() or not file.size:
                continue
            if HOLDERS.search(file.name):
                yield f"layer {name}: {file.name}"
            if not INSTALLED.match(file.name) and not file.name.endswith(".pyc"):
                files.extract(file, folder, filter="data")


def secrets(folder: Path, names: Iterable[str]) -> list[str]:
    """Return `file:line: kind` of what looks like a secret in files below a folder."""
    found = SecretsCollection(root=str(folder))
    with default_settings():
        get_settings().disable_plugins("HexHighEntropyString")  # this project is full of digests
        get_settings().filters["detect_secrets.filters.regex.should_exclude_line"] = {"pattern": NAMES}
        for name in names:
            found.scan_file(name)
    return [f"{name}:{secret.line_number}: {secret.type}" for name, secret in found]


if __name__ == "__main__":
    main()
