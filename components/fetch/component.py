from kfp import dsl


@dsl.component(base_image="data", install_kfp_package=False)
def fetch(sources: dict[str, object], run_tag: str, verified: dsl.Output[dsl.Dataset]) -> str:
    """Bring the data sets of the catalogue into object storage, verified."""
    from components.fetch.stage import run
    from wordmill.recipe.parsing import struct_text

    return run(sources=struct_text(sources), run_tag=run_tag, output=verified.path)
