from kfp import dsl


@dsl.component(base_image="data", install_kfp_package=False)
def fresh(recipe: str, sources: str, sections: list[str], run_tag: str, checked: dsl.Output[dsl.Artifact]) -> str:
    """Tell whether data, code or recipe differ from those of the last night that finished: changed or unchanged."""
    import json

    from components.fresh.stage import run

    texts = json.dumps(sections)
    return run(recipe=recipe, sources=sources, sections=texts, run_tag=run_tag, output=checked.path)
