from kfp import dsl


@dsl.component(base_image="pytorch", install_kfp_package=False)
def export(
    export_format: str, export: str, run_tag: str, trained: dsl.Input[dsl.Model], exported: dsl.Output[dsl.Model]
) -> str:
    """Write the recogniser in one file format."""
    from components.export.stage import run

    return run(export_format=export_format, export=export, model=trained.path, run_tag=run_tag, output=exported.path)
