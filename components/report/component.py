from kfp import dsl


@dsl.component(base_image="data", install_kfp_package=False)
def report(recipe: str, run_tag: str, status: dsl.PipelineTaskFinalStatus, page: dsl.Output[dsl.HTML]) -> str:
    """Gather what every stage recorded into one page, one summary and the MLflow run, whatever the outcome."""
    import os
    import shutil

    from components.report.stage import run

    # The state's name differs: SUCCEEDED in a local run, COMPLETE or CACHED on a cluster.
    succeeded = str(status.state in ("SUCCEEDED", "COMPLETE", "CACHED")).lower()
    manifest = f"{page.path}.manifest"
    reference = run(recipe=recipe, run_tag=run_tag, succeeded=succeeded, output=manifest)
    shutil.copy(os.path.join(os.path.dirname(manifest), "report.html"), page.path)
    return reference
