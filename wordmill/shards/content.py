"""A digest of samples, their labels and pictures in order, that does not depend on how they are cut into shards."""

from dataclasses import dataclass

import xxhash

# A polynomial over the samples' digests (Karp and Rabin 1987): the parts of a set are joined without their samples.
PRIME = (1 << 127) - 1
BASE = 0x5DEECE66D1F2E3C4B5A69788796A5B4D


@dataclass(kw_only=True)
class Content:
    """What has been added: the polynomial's value, and of how many samples."""

    value: int = 0
    samples: int = 0

    def add(self, picture: bytes | memoryview, label: str) -> None:
        """Add the next sample: the bytes of its picture, or of its file, and its label."""
        digest = xxhash.xxh3_128_intdigest(picture, seed=xxhash.xxh3_64_intdigest(label.encode()))
        self.value = (self.value * BASE + digest + 1) % PRIME
        self.samples += 1

    def join(self, other: "Content") -> "Content":
        """Return what there is when the other's samples follow."""
        value = (self.value * pow(BASE, other.samples, PRIME) + other.value) % PRIME
        return Content(value=value, samples=self.samples + other.samples)
