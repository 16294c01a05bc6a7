from kfp import dsl


@dsl.component(base_image="data", install_kfp_package=False)
def fresh(
    recipe: str, sources: str, data: str, model: str, train: str, evaluation: str, gate: str, export: str,
    run_tag: str, checked: dsl.Output[dsl.Artifact],
) -> str:  # fmt: skip
    """Tell whether data, code or recipe differ from those of the last night that finished: changed or unchanged."""
    from components.fresh.stage import run

    return run(recipe=recipe, sources=sources, data=data, model=model, train=train, evaluation=evaluation, gate=gate,
               export=export, run_tag=run_tag, output=checked.path)  # fmt: skip
