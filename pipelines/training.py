"""The graph: data sets -> shards -> recogniser -> one measurement per benchmark, one proven file per format -> gate."""

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from components.evaluate.component import evaluate
from components.export.component import export
from components.fetch.component import fetch
from components.gate.component import gate
from components.recognition.catalogue import Entry, to_text
from components.recognition.recipe import Recipe, to_json
from components.report.component import report
from components.shard.component import shard
from components.smoke.component import smoke
from components.train.component import train
from pipelines.cluster import Where, accelerate, place
from pipelines.images import EXPORTERS


def training_pipeline(recipe: Recipe, catalogue: dict[str, Entry], where: Where) -> GraphComponent:
    """Build the pipeline of a recipe; benchmarks and formats are unrolled here so that each has a task of its name."""
    framework = recipe.train.framework

    @dsl.pipeline(name=f"wordmill-{recipe.name.replace('_', '-')}", description=f"Train and prove {recipe.name}")
    def training(
        run_tag: str,
        sources: str = to_text(catalogue),
        data_section: str = to_json(recipe.data),
        model_section: str = to_json(recipe.model),
        train_section: str = to_json(recipe.train),
        evaluation_section: str = to_json(recipe.evaluation),
        gate_section: str = to_json(recipe.gate),
        export_section: str = to_json(recipe.export),
        device: str = where.device,
        processes: int = where.processes,
    ) -> None:
        summary = place(report(recipe=recipe.name, run_tag=run_tag), "data", "report")
        with dsl.ExitHandler(summary, name="recogniser"):
            fetched = place(fetch(sources=sources, run_tag=run_tag), "data", "fetch")
            verified = fetched.outputs["verified"]
            packed = place(shard(data=data_section, verified=verified, run_tag=run_tag), "data", "shard")
            shards = packed.outputs["shards"]
            learned = train(recipe=recipe.name, data=data_section, model=model_section, train=train_section,
                            shards=shards, device=device, processes=processes, run_tag=run_tag)  # fmt: skip
            accelerate(place(learned, framework, "train"), where.device, where.processes)
            trained = learned.outputs["trained"]

            measured = []
            for benchmark in recipe.benchmarks:
                task = evaluate(benchmark=benchmark, evaluation=evaluation_section, trained=trained, shards=shards,
                                device=device, run_tag=run_tag)  # fmt: skip
                measured.append(accelerate(place(task, framework, benchmark), where.device, 1))

            proven = []
            for kind in (*recipe.export.formats, *recipe.export.optional):
                task = export(export_format=kind, export=export_section, trained=trained, run_tag=run_tag)
                written = place(task, EXPORTERS[kind], kind)
                exported = written.outputs["exported"]
                tried = smoke(export=export_section, exported=exported, trained=trained, run_tag=run_tag)
                proven.append(place(tried, EXPORTERS[kind], f"{kind} smoke test"))

            decided = gate(
                gate=gate_section,
                recipe=recipe.name,
                trained=trained,
                evaluations=[task.outputs["Output"] for task in measured],
                parities=[task.outputs["Output"] for task in proven],
                run_tag=run_tag,
            )
            # It registers an ONNX file for any batch: what no task has exported, it exports itself.
            whole = "onnx" in recipe.export.formats and not recipe.export.batches
            place(decided, "data" if whole else EXPORTERS["onnx"], "gate")

    return training
