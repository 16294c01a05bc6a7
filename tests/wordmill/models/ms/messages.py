"""MindSpore's checkpoint files, each value chosen."""

from mindspore.train.checkpoint_pb2 import Checkpoint

Entry = tuple[str, tuple[int, ...], str, bytes]  # its name, shape, type and content


def message(*entries: Entry) -> bytes:
    """Return a file of these entries, whatever they say of themselves."""
    made = Checkpoint()
    for tag, dims, kind, content in entries:
        entry = made.value.add()
        entry.tag = tag
        entry.tensor.dims.extend(dims)
        entry.tensor.tensor_type, entry.tensor.tensor_content = kind, content
    return bytes(made.SerializeToString())
