from kfp import dsl


@dsl.component(base_image="pytorch", install_kfp_package=False)
def smoke(
    export: str, run_tag: str, exported: dsl.Input[dsl.Model], trained: dsl.Input[dsl.Model],
    parity: dsl.Output[dsl.Artifact],
) -> str:  # fmt: skip
    """Run an exported file in its own runtime and compare it with the trained recogniser."""
    from components.smoke.stage import run

    return run(export=export, exported=exported.path, model=trained.path, run_tag=run_tag, output=parity.path)
