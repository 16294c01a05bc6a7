"""A recogniser's parameters by the project's canonical names, which are PyTorch's."""

from mindspore import Parameter

from wordmill.models.ms.model import Recogniser

# Only batch normalisation and embeddings are named differently; the layouts of all layers are the same.
TO_CANONICAL = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var",
                "embedding_table": "weight"}  # fmt: skip


def named(net: Recogniser) -> dict[str, Parameter]:
    """Return the parameters and batch statistics of a network by canonical name."""
    split = [(*name.rpartition("."), parameter) for name, parameter in net.parameters_and_names()]
    return {f"{path}.{TO_CANONICAL.get(leaf, leaf)}": parameter for path, _, leaf, parameter in split}


def trained_names(net: Recogniser) -> list[str]:
    """Return the canonical names of net.trainable_params(), in their order."""
    return [name for name, parameter in named(net).items() if parameter.requires_grad]


def statistics(net: Recogniser) -> dict[str, Parameter]:
    """Return the running statistics of batch normalisation by canonical name."""
    return {name: parameter for name, parameter in named(net).items() if ".running_" in name}
