from kfp import dsl


@dsl.component(base_image="pytorch", install_kfp_package=False)
def train(
    recipe: str,
    data: str,
    model: str,
    train: str,
    device: str,
    processes: int,
    gang: str,
    run_tag: str,
    shards: dsl.Input[dsl.Dataset],
    trained: dsl.Output[dsl.Model],
) -> str:
    """Train the recogniser with one process per device, on several nodes by a job that this stage has made."""
    from components.train.stage import run

    return run(
        recipe=recipe,
        data=data,
        model=model,
        train=train,
        shards=shards.path,
        device=device,
        processes=processes,
        gang=gang,
        run_tag=run_tag,
        output=trained.path,
    )
