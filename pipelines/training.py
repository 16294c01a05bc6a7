"""The graph: data sets -> shards -> recogniser -> one measurement per benchmark, one proven file per format -> gate."""

import json
from contextlib import nullcontext

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from components.evaluate.component import evaluate, evaluate_rivals
from components.export.component import export
from components.fetch.component import fetch
from components.fresh.component import fresh
from components.gate.component import gate
from components.report.component import report
from components.shard.component import shard
from components.smoke.component import smoke
from components.train.component import train
from pipelines.cluster.tasks import CONFIG, accelerate, configure, gang_job, notify, train_on
from pipelines.images.references import EXPORTERS
from pipelines.profiles import Profile
from wordmill.recipe.catalogue import Entry, to_text
from wordmill.recipe.parsing import to_struct
from wordmill.recipe.sections import Recipe

SECTIONS = ("data", "model", "train", "evaluation", "gate", "export")
Struct = dict[str, object]  # of a parameter, which the run's page shows key by key


def training_pipeline(
    recipe: Recipe, catalogue: dict[str, Entry], profile: Profile, nightly: bool = False
) -> GraphComponent:
    """Build the pipeline of a recipe; benchmarks and formats are unrolled here so that each has a task of its name.

    A nightly one ends well, with nothing done, where neither data nor code nor recipe are new since the last night.
    """
    framework = recipe.train.framework
    shown: dict[str, Struct] = {name: to_struct(getattr(recipe, name)) for name in SECTIONS}
    entries, job = json.loads(to_text(catalogue)), gang_job(profile, framework)
    name = f"wordmill-{recipe.name.replace('_', '-')}{'-nightly' if nightly else ''}"

    @dsl.pipeline(name=name, description=f"Train and prove {recipe.name}", pipeline_config=CONFIG)
    def training(
        run_tag: str,
        sources: Struct = entries,
        data_section: Struct = shown["data"],
        model_section: Struct = shown["model"],
        train_section: Struct = shown["train"],
        evaluation_section: Struct = shown["evaluation"],
        gate_section: Struct = shown["gate"],
        export_section: Struct = shown["export"],
        device: str = profile.device,
        processes: int = profile.processes,
        gang: Struct = job,
    ) -> None:
        summary = notify(
            configure(
                report(recipe=recipe.name, run_tag=run_tag, expected=recorded_tasks(recipe, nightly), nightly=nightly),
                "report",
                "data",
                "report",
            )
        )
        sections = {"data": data_section, "model": model_section, "train": train_section,
                    "evaluation": evaluation_section, "gate": gate_section, "export": export_section}  # fmt: skip
        with (
            dsl.ExitHandler(summary, name="recogniser"),
            _something_new(recipe.name, sources, sections, run_tag) if nightly else nullcontext(),
        ):
            fetched = configure(fetch(sources=sources, run_tag=run_tag), "fetch", "data", "fetch")
            verified = fetched.outputs["verified"]
            packed = configure(shard(data=data_section, verified=verified, run_tag=run_tag), "shard", "data", "shard")
            shards = packed.outputs["shards"]
            learned = train(recipe=recipe.name, data=data_section, model=model_section, train=train_section,
                            shards=shards, device=device, processes=processes, gang=gang,
                            run_tag=run_tag)  # fmt: skip
            train_on(configure(learned, "train", profile.environment(framework), "train"), profile)
            trained = learned.outputs["trained"]

            measured = _measure(recipe, profile, evaluation_section, trained, shards, device, run_tag)
            proven = _prove(recipe, profile, export_section, trained, run_tag)
            rivals = _rivals(recipe, profile, data_section, evaluation_section, learned, shards, device, run_tag)
            _decide(recipe, gate_section, trained, measured, proven, rivals, run_tag)

    return training


def recorded_tasks(recipe: Recipe, nightly: bool) -> list[str]:
    """Return the tasks that record themselves in a whole run, "stage.name", in the order of their making below."""
    first = [f"fresh.{recipe.name}"] if nightly else []
    files = [f"{stage}.{kind}" for kind in (*recipe.export.formats, *recipe.export.optional)
             for stage in ("export", "smoke")]  # fmt: skip
    rivals = [f"rivals.{recipe.name}"] if recipe.gate.promote else []
    measured = [f"evaluate.{name}" for name in recipe.benchmarks]
    return [*first, "fetch.datasets", "shard.datasets", f"train.{recipe.model.name}", *measured, *files, *rivals,
            f"gate.{recipe.name}"]  # fmt: skip


def _something_new(recipe: str, sources: Struct, sections: dict[str, Struct], run_tag: str) -> dsl.If:
    """Return the branch for a night with new data, code or recipe; the look at them is a task before it."""
    look = configure(fresh(recipe=recipe, sources=sources, run_tag=run_tag, **sections), "fresh", "data", "fresh")
    branch: dsl.If = dsl.If(look.outputs["Output"] == "changed", name="something new")
    return branch


def _measure(
    recipe: Recipe,
    profile: Profile,
    section: Struct,
    trained: dsl.Artifact,
    shards: dsl.Artifact,
    device: str,
    run_tag: str,
) -> list[dsl.PipelineTask]:
    """Return the tasks that measure the recogniser, one per benchmark."""
    tasks = []
    for benchmark in recipe.benchmarks:
        task = evaluate(benchmark=benchmark, evaluation=section, trained=trained, shards=shards, device=device,
                        run_tag=run_tag)  # fmt: skip
        environment = profile.environment(recipe.train.framework)
        tasks.append(accelerate(configure(task, "evaluate", environment, benchmark), profile, 1))
    return tasks


def _rivals(
    recipe: Recipe,
    profile: Profile,
    data: Struct,
    section: Struct,
    learned: dsl.PipelineTask,
    shards: dsl.Artifact,
    device: str,
    run_tag: str,
) -> dsl.PipelineTask | None:
    """Return the task that measures champions again, after training, which needs the devices; of a smoke run none."""
    if not recipe.gate.promote:
        return None
    task = evaluate_rivals(recipe=recipe.name, benchmarks=list(recipe.benchmarks), data=data, evaluation=section,
                           shards=shards, device=device, run_tag=run_tag)  # fmt: skip
    configure(task, "evaluate", profile.environment(recipe.train.framework), "champion")
    return accelerate(task.after(learned), profile, 1)


def _prove(
    recipe: Recipe, profile: Profile, section: Struct, trained: dsl.Artifact, run_tag: str
) -> list[dsl.PipelineTask]:
    """Return the tasks that try the exported files, one per format, each behind the task that writes its file."""
    tasks = []
    for kind in (*recipe.export.formats, *recipe.export.optional):
        task = export(export_format=kind, export=section, trained=trained, run_tag=run_tag)
        exported = configure(task, "export", EXPORTERS[kind], kind).outputs["exported"]
        tried = smoke(export=section, exported=exported, trained=trained, run_tag=run_tag)
        tasks.append(configure(tried, "smoke", EXPORTERS[kind], f"{kind} smoke test"))
        if profile.device == "npu" and (kind == "om" or (kind == "lite" and recipe.export.lite_device == "ascend")):
            accelerate(tried, profile, 1)
    return tasks


def _decide(
    recipe: Recipe,
    section: Struct,
    trained: dsl.Artifact,
    measured: list[dsl.PipelineTask],
    proven: list[dsl.PipelineTask],
    rivals: dsl.PipelineTask | None,
    run_tag: str,
) -> None:
    """Add the task that compares the recogniser with the champion and registers it."""
    decided = gate(
        gate=section,
        recipe=recipe.name,
        trained=trained,
        evaluations=[task.outputs["Output"] for task in measured],
        parities=[task.outputs["Output"] for task in proven],
        rivals=rivals.outputs["Output"] if rivals else "",
        run_tag=run_tag,
    )
    # It registers an ONNX file for any batch: what no task has exported, it exports itself.
    whole = "onnx" in recipe.export.formats and not recipe.export.batches
    configure(decided, "gate", "data" if whole else EXPORTERS["onnx"], "gate")
