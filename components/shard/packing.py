"""What a worker process of the shard stage does: a range of a data set's samples becomes one shard file."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from components.recognition.blocks import MAX_LABEL_BYTES, Shape, ShardWriter
from components.recognition.catalogue import Entry
from components.recognition.charset import Charset
from components.recognition.image import Picture, decode, fit_picture
from components.recognition.readers import Sample, open_reader
from components.recognition.recipe import Data


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What becomes of samples: how pictures are fitted, and which labels a training set goes without."""

    data: Data
    charset: Charset
    training: bool

    @property
    def shape(self) -> Shape:
        """(H, W, C) of a picture."""
        return self.data.height, self.data.width, self.data.channels

    @property
    def drops_odd(self) -> bool:
        """Whether a character outside the charset costs a training sample, not only itself."""
        return self.training and self.data.label_policy == "drop"


@dataclass(frozen=True, kw_only=True)
class Task:
    """Samples start <= i < stop of a data set, and the file that they go to."""

    entry: Entry
    root: Path
    start: int
    stop: int
    path: Path
    rules: Rules


@dataclass(kw_only=True)
class Packed:
    """What came of a task: samples and blocks written, and what was dropped, changed and put aside, by reason."""

    samples: int = 0
    blocks: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    quarantine: list[dict[str, str]] = field(default_factory=list)


def pack(task: Task) -> Packed:
    """Read a range of samples and write its shard."""
    packed = Packed()
    reader = open_reader(task.entry, task.root)
    with ShardWriter(task.path, task.rules.shape, task.stop - task.start) as writer:
        for sample in reader.read(task.start, task.stop):
            try:
                image = picture(sample, task.rules.data)
            except ValueError as error:
                packed.quarantine.append({"where": sample.where, "reason": str(error)})
                continue
            if reason := reason_to_drop(sample.label, task.rules):
                packed.dropped[reason] += 1
                continue
            packed.changed.update(changes(sample.label, task.rules.charset))
            writer.add(image, sample.label)
    packed.samples, packed.blocks = writer.samples, writer.blocks
    return packed


def picture(sample: Sample, data: Data) -> Picture:
    """Return a sample's picture, uint8 (H, W, C) of the recipe; ValueError says why the sample is put aside."""
    if sample.problem:
        raise ValueError(sample.problem)
    if (length := len(sample.label.encode())) > MAX_LABEL_BYTES:
        raise ValueError(f"label of {length} bytes, expected at most {MAX_LABEL_BYTES}")
    image = sample.image if not isinstance(sample.image, bytes) else decode(sample.image, data.channels)
    return fit_picture(image, data)


def reason_to_drop(label: str, rules: Rules) -> str:
    """Return why a training set goes without a sample, or nothing; other sets keep every sample."""
    if not rules.training:
        return ""
    cleaned = rules.charset.clean(label)
    if not cleaned:
        return "no character of the charset"
    return "character outside the charset" if rules.drops_odd and cleaned != rules.charset.fold(label) else ""


def changes(label: str, charset: Charset) -> list[str]:
    """Return what a recogniser of this charset will not see of a label; the label itself is stored as it is."""
    folded = charset.fold(label)
    found = {"case folded": folded != label, "characters deleted": charset.clean(label) != folded}
    return [name for name, is_so in found.items() if is_so]
