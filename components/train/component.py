from kfp import dsl


@dsl.component(base_image="pytorch", install_kfp_package=False)
def train(
    recipe: str,
    data: dict[str, object],
    model: dict[str, object],
    train: dict[str, object],
    device: str,
    processes: int,
    gang: dict[str, object],
    run_tag: str,
    shards: dsl.Input[dsl.Dataset],
    trained: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Train the recogniser with one process per device, here or by a job that this stage has made."""
    from components.train.stage import run
    from wordmill.recipe.parsing import struct_text
    from wordmill.store.artifacts import figures

    told = run(
        recipe=recipe,
        data=struct_text(data),
        model=struct_text(model),
        train=struct_text(train),
        shards=shards.path,
        device=device,
        processes=processes,
        gang=struct_text(gang),
        run_tag=run_tag,
        output=trained.path,
    )
    for name, value in figures(trained.path).items():
        metrics.log_metric(name, value)
    return told
