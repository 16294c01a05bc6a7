from kfp import dsl


@dsl.component(base_image="data", install_kfp_package=False)
def shard(data: str, run_tag: str, verified: dsl.Input[dsl.Dataset], shards: dsl.Output[dsl.Dataset]) -> str:
    """Pack the data sets into LMDB shards of decoded, resized pictures."""
    from components.shard.stage import run

    return run(data=data, sources=verified.path, run_tag=run_tag, output=shards.path)
