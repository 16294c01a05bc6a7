from kfp import dsl


@dsl.component(base_image="data", install_kfp_package=False)
def gate(
    gate: dict[str, object],
    recipe: str,
    evaluations: list[str],
    parities: list[str],
    rivals: str,
    run_tag: str,
    trained: dsl.Input[dsl.Model],
    decision: dsl.Output[dsl.Artifact],
) -> str:
    """Compare the candidate with the champion and move the registry's alias if it is at least as good."""
    import json

    from components.gate.stage import run
    from wordmill.recipe.parsing import struct_text

    return run(
        gate=struct_text(gate),
        recipe=recipe,
        model=trained.path,
        evaluations=json.dumps(evaluations),
        parities=json.dumps(parities),
        rivals=rivals,
        run_tag=run_tag,
        output=decision.path,
    )
