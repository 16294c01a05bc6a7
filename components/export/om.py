"""Files for Ascend chips: CANN's atc converts ONNX to OM, one file per batch size or one with gears."""

import os
from pathlib import Path

from components.export.converter import LOG, find_tool, run_converter
from components.export.formats import NotMadeError, Source, Written, exporter, model_path
from wordmill.inference.card import ANY
from wordmill.models.ports import INPUT
from wordmill.recipe.sections import Data, Export

BATCHES = (1, 16, 64)  # without the recipe's: an OM file of an LSTM is dependable for one batch size only
ONNX_FORMAT = "5"  # atc's number of the framework that a file comes from
CANN = "install CANN and source its set_env.sh, or take om out of the recipe's export.formats"


def write_om(source: Source) -> Written:
    """Write OM files for the chip that WORDMILL_SOC_VERSION names."""
    settings, data, folder = source.settings, source.saved.data, source.folder
    chip, atc = soc_version(), find_tool("atc", "om", CANN)
    pytorch = exporter("pytorch", "om")
    log, models = folder / LOG, {}
    batches = settings.batches or BATCHES
    configuration = write_aipp(data, folder) if settings.aipp else None
    for batch in (None,) if settings.gears else batches:
        # The chip writes logits; what they read is worked out on the host, which has the operators for it.
        onnx = model_path(folder, "onnx", batch)
        pytorch.export_onnx(source.saved, onnx, settings.opset, batch, decoded=False)
        path = model_path(folder, "om", batch)
        command = [atc, *_options(onnx.name, path.stem, settings, data, batch), f"--soc_version={chip}"]
        command += [f"--insert_op_conf={configuration.name}"] if configuration else []
        models[str(batch or ANY)] = run_converter(command, path.with_suffix(""), ".om", log).rename(path)
    precision = "fp32" if settings.precision_mode == "must_keep_origin_dtype" else "fp16"
    facts = {"soc_version": chip, "precision_mode": settings.precision_mode, "aipp": settings.aipp}
    gears = {"gears": sorted(batches)} if settings.gears else {}
    others = (log, configuration) if configuration else (log,)
    return Written(models=models, precision=precision, others=others, facts=facts | gears, card=gears,
                   raw=settings.aipp)  # fmt: skip


def _options(onnx: str, stem: str, settings: Export, data: Data, batch: int | None) -> list[str]:
    """Return atc's options for a batch size, or for the recipe's batches as gears of one file."""
    shape = ",".join(map(str, (batch or -1, data.channels, data.height, data.width)))
    gears = ",".join(map(str, sorted(settings.batches)))
    return [
        f"--model={onnx}", f"--framework={ONNX_FORMAT}", f"--output={stem}", "--input_format=NCHW",
        f"--input_shape={INPUT}:{shape}", *([] if batch else [f"--dynamic_batch_size={gears}"]),
        f"--precision_mode={settings.precision_mode}", f"--output_type={settings.output_type}", "--log=error",
    ]  # fmt: skip


def write_aipp(data: Data, folder: Path) -> Path:
    """Write the configuration by which the chip normalises uint8 (N, H, W, C) itself: (x - middle) / middle.

    As CANN's documents have it, a pixel becomes (x - mean_chn - min_chn) * var_reci_chn; mean_chn is a whole number,
    which the middle need not be.
    """
    kind = "RGB888_U8" if data.channels == 3 else "YUV400_U8"
    lines = ["aipp_mode: static", "related_input_rank: 0", f"input_format: {kind}",
             f"src_image_size_w: {data.width}", f"src_image_size_h: {data.height}", "csc_switch: false",
             "rbuv_swap_switch: false"]  # fmt: skip
    for channel in range(data.channels):
        lines += [f"mean_chn_{channel}: 0", f"min_chn_{channel}: {data.middle}",
                  f"var_reci_chn_{channel}: {1 / data.middle:.8f}"]  # fmt: skip
    path = folder / "aipp.cfg"
    path.write_text("\n".join(["aipp_op {", *(f"  {line}" for line in lines), "}", ""]), encoding="utf-8")
    return path


def soc_version() -> str:
    """Return the name of the chip that files are made for; NotMadeError where it is not told."""
    name = os.environ.get("WORDMILL_SOC_VERSION")
    if not name:
        raise NotMadeError("format om: WORDMILL_SOC_VERSION is not set: it names the chip, such as Ascend910B3: "
                           "'Ascend' and the name that npu-smi info shows")  # fmt: skip
    return name
