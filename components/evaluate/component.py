from kfp import dsl


@dsl.component(base_image="pytorch", install_kfp_package=False)
def evaluate(
    benchmark: str, evaluation: dict[str, object], device: str, run_tag: str, trained: dsl.Input[dsl.Model],
    shards: dsl.Input[dsl.Dataset], measured: dsl.Output[dsl.Artifact], metrics: dsl.Output[dsl.Metrics],
) -> str:  # fmt: skip
    """Measure the recogniser on one benchmark."""
    from components.evaluate.stage import run
    from wordmill.recipe.parsing import struct_text
    from wordmill.store.artifacts import figures

    told = run(benchmark=benchmark, evaluation=struct_text(evaluation), model=trained.path, shards=shards.path,
               device=device, run_tag=run_tag, output=measured.path)  # fmt: skip
    for name, value in figures(measured.path).items():
        metrics.log_metric(name, value)
    return told


@dsl.component(base_image="pytorch", install_kfp_package=False)
def evaluate_rivals(
    recipe: str, benchmarks: list[str], data: dict[str, object], evaluation: dict[str, object], device: str,
    run_tag: str, shards: dsl.Input[dsl.Dataset], measured: dsl.Output[dsl.Artifact],
) -> str:  # fmt: skip
    """Measure whom the recogniser is compared with, where that is not done."""
    import json

    from components.evaluate.rivals import run_rivals
    from wordmill.recipe.parsing import struct_text

    return run_rivals(recipe=recipe, benchmarks=json.dumps(benchmarks), data=struct_text(data),
                      evaluation=struct_text(evaluation), shards=shards.path, device=device, run_tag=run_tag,
                      output=measured.path)  # fmt: skip
