from kfp import dsl


@dsl.component(base_image="pytorch", install_kfp_package=False)
def smoke(
    export: dict[str, object], run_tag: str, exported: dsl.Input[dsl.Model], trained: dsl.Input[dsl.Model],
    parity: dsl.Output[dsl.Artifact],
) -> str:  # fmt: skip
    """Run an exported file in its own runtime and compare it with the trained recogniser."""
    from components.smoke.stage import run
    from wordmill.recipe.parsing import struct_text

    return run(export=struct_text(export), exported=exported.path, model=trained.path, run_tag=run_tag,
               output=parity.path)  # fmt: skip
