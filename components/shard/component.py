from kfp import dsl


@dsl.component(base_image="data", install_kfp_package=False)
def shard(
    data: dict[str, object], run_tag: str, verified: dsl.Input[dsl.Dataset], shards: dsl.Output[dsl.Dataset]
) -> str:
    """Pack the data sets into LMDB shards of decoded, resized pictures."""
    from components.shard.stage import run
    from wordmill.recipe.parsing import struct_text

    return run(data=struct_text(data), sources=verified.path, run_tag=run_tag, output=shards.path)
