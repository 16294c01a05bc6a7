"""Files for MindSpore Lite: its converter_lite turns ONNX into its own MindIR, for processors or for Ascend chips."""

import os
from pathlib import Path

from components.export.converter import LOG, find_tool, run_converter
from components.export.formats import Source, Written, exporter, model_path
from wordmill.inference.card import ANY
from wordmill.models.ports import INPUT
from wordmill.recipe.sections import Data

BATCHES = (1, 16, 64)  # without the recipe's, for chips: some run no file of an open batch size
LITE = ("unpack mindspore-lite-<version>-linux-<processor>.tar.gz of https://www.mindspore.cn/lite, put its "
        "tools/converter/converter on PATH and its tools/converter/lib and runtime/lib on LD_LIBRARY_PATH, "
        "or take lite out of the recipe's export.formats")  # fmt: skip


def write_lite(source: Source) -> Written:
    """Write MindSpore Lite's files; from ONNX, because MindIR made on a processor holds that processor's LSTM."""
    settings, data, folder = source.settings, source.saved.data, source.folder
    ascend = settings.lite_device == "ascend"
    tool = find_tool("converter_lite", "lite", LITE)
    pytorch = exporter("pytorch", "lite")
    log, models, configurations = folder / LOG, {}, []
    for batch in settings.batches or (BATCHES if ascend else (None,)):
        onnx = model_path(folder, "onnx", batch)
        pytorch.export_onnx(source.saved, onnx, settings.opset, batch, decoded=False)
        path = model_path(folder, "mindir", batch)
        command = [tool, "--fmk=ONNX", "--saveType=MINDIR", f"--modelFile={onnx.name}",
                   f"--outputFile={path.stem}", f"--optimize={optimisation(ascend)}"]  # fmt: skip
        if ascend:
            configurations.append(write_configuration(data, path.with_suffix(".cfg"), batch))
            command.append(f"--configFile={configurations[-1].name}")
        models[str(batch or ANY)] = run_converter(command, path.with_suffix(""), ".mindir", log)
    told = {"device": settings.lite_device}
    return Written(models=models, precision="fp16" if ascend else "fp32", others=(log, *configurations), facts=told,
                   card=told)  # fmt: skip


def optimisation(ascend: bool) -> str:
    """Return what the converter is to optimise for: processors, the chip of WORDMILL_SOC_VERSION, or this host's."""
    if not ascend:
        return "general"
    chip = os.environ.get("WORDMILL_SOC_VERSION", "").removeprefix("Ascend")
    families = [family for family in ("910B", "310P", "310", "910") if chip.startswith(family)]
    return f"ascend_oriented:{families[0]}" if families else "ascend_oriented"


def write_configuration(data: Data, path: Path, batch: int | None) -> Path:
    """Write the converter's options for a chip: the input's layout and shape, the precision, the output's type."""
    shape = f"{INPUT}:[{batch},{data.channels},{data.height},{data.width}]"
    lines = ["[ascend_context]", "input_format=NCHW", f"input_shape={shape}", "precision_mode=enforce_fp16",
             "output_type=FP32", ""]  # fmt: skip
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
