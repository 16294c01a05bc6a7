from kfp import dsl


@dsl.component(base_image="data", install_kfp_package=False)
def report(
    recipe: str, run_tag: str, nightly: bool, status: dsl.PipelineTaskFinalStatus, page: dsl.Output[dsl.HTML],
    parity: dsl.Output[dsl.Markdown], numbers: dsl.Output[dsl.Metrics],
) -> str:  # fmt: skip
    """Gather what every stage recorded into one page, one summary and the MLflow run, whatever the outcome."""
    import json
    import pathlib
    import shutil

    from components.report import kubeflow
    from components.report.stage import run

    # The state's name differs: SUCCEEDED in a local run, COMPLETE or CACHED on a cluster.
    succeeded = str(status.state in ("SUCCEEDED", "COMPLETE", "CACHED")).lower()
    output = pathlib.Path(f"{page.path}.manifest")
    told = run(recipe=recipe, run_tag=run_tag, succeeded=succeeded, nightly=str(nightly).lower(), output=str(output))
    shutil.copy(output.with_name("report.html"), page.path)
    summary = json.loads(output.with_name("summary.json").read_text(encoding="utf-8"))
    pathlib.Path(parity.path).write_text(kubeflow.parity(summary), encoding="utf-8")
    for name, value in kubeflow.numbers(summary).items():
        numbers.log_metric(name, value)
    return told
