from kfp import dsl


@dsl.component(base_image="data", install_kfp_package=False)
def report(
    recipe: str, run_tag: str, expected: list[str], nightly: bool, status: dsl.PipelineTaskFinalStatus,
    report: dsl.Output[dsl.HTML], summary: dsl.Output[dsl.Markdown], metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
) -> str:  # fmt: skip
    """Gather what every stage recorded into one page, one summary and the MLflow run, whatever the outcome."""
    import json
    import pathlib
    import shutil

    from components.report import kubeflow
    from components.report.stage import run

    output = pathlib.Path(f"{report.path}.manifest")
    told = run(recipe=recipe, run_tag=run_tag, state=status.state, expected=json.dumps(expected),
               nightly=str(nightly).lower(), output=str(output))  # fmt: skip
    shutil.copy(output.with_name("report.html"), report.path)
    shutil.copy(output.with_name("summary.md"), summary.path)
    document = json.loads(output.with_name("summary.json").read_text(encoding="utf-8"))
    for artifact in (report, summary):
        artifact.metadata.update(kubeflow.places(document))
    for name, value in kubeflow.metrics(document).items():
        metrics.log_metric(name, value)
    if rows := kubeflow.confusion_matrix(document):
        confusion.log_confusion_matrix(*rows)
    return told
