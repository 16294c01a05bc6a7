from kfp import dsl


@dsl.component(base_image="pytorch", install_kfp_package=False)
def export(
    export_format: str, export: dict[str, object], run_tag: str, trained: dsl.Input[dsl.Model],
    exported: dsl.Output[dsl.Model],
) -> str:  # fmt: skip
    """Write the recogniser in one file format."""
    from components.export.stage import run
    from wordmill.recipe.parsing import struct_text

    return run(export_format=export_format, export=struct_text(export), model=trained.path, run_tag=run_tag,
               output=exported.path)  # fmt: skip
