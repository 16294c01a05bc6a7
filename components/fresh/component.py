from kfp import dsl


@dsl.component(base_image="data", install_kfp_package=False)
def fresh(
    recipe: str, sources: dict[str, object], data: dict[str, object], model: dict[str, object],
    train: dict[str, object], evaluation: dict[str, object], gate: dict[str, object], export: dict[str, object],
    run_tag: str, checked: dsl.Output[dsl.Artifact],
) -> str:  # fmt: skip
    """Tell whether data, code or recipe differ from those of the last night that finished: changed or unchanged."""
    from components.fresh.stage import run
    from wordmill.recipe.parsing import struct_text

    return run(recipe=recipe, sources=struct_text(sources), data=struct_text(data), model=struct_text(model),
               train=struct_text(train), evaluation=struct_text(evaluation), gate=struct_text(gate),
               export=struct_text(export), run_tag=run_tag, output=checked.path)  # fmt: skip
